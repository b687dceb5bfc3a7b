-- Repeats one POST. Arguments: a file of "Name: value" lines, a file with the body, and optionally "check":
-- then every answer is read and those that are not a JSON-RPC result are counted (slower, so never while measuring).
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  wrong = 0
  wrk.method = "POST"
  for line in io.lines(args[1]) do
    local name, value = line:match("^([^:]+): (.*)$")
    wrk.headers[name] = value
  end
  local file = io.open(args[2], "rb")
  wrk.body = file:read("*a")
  file:close()
  if args[3] == "check" then
    response = function(status, headers, body)
      if status ~= 200 or body:find('"error":', 1, true) or not body:find('"result":', 1, true) then
        wrong = wrong + 1
      end
    end
  end
  local built = wrk.format()
  request = function() return built end
end

function done(summary, latency, requests)
  local wrong_total = 0
  for _, thread in ipairs(threads) do wrong_total = wrong_total + thread:get("wrong") end
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"requests":%d,"duration_us":%d,"bytes":%d,"p50_us":%d,"p99_us":%d,"max_us":%d,"bad_status":%d,'
      .. '"bad_socket":%d,"timeouts":%d,"wrong":%d}\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99), latency.max,
    errors.status, errors.connect + errors.read + errors.write, errors.timeout, wrong_total))
end
