"""What must be atomic in Redis, as Lua. Every script touches keys of one hash slot only, and returns plain values.

Keys of a session: S its record (a hash: `r` record, `l` log level, `b` bytes of its events, `c:NAME` claims), O its
owners (a set), W the replicas with a standing stream of it (a set), E its events (a stream of `s` stream, `p` position,
`m` message). They live and end together. Works from Redis 6.2 and Valkey on.
"""

from __future__ import annotations

import hashlib
from typing import Final, final


@final
class Script:
    """One script, and the name that Redis knows it by once it was run."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text: Final = text.strip().encode()
        self.sha: Final = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


CREATE: Final = Script("""
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
redis.call('HSET', KEYS[1], 'r', ARGV[2])
redis.call('SADD', KEYS[2], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 1
""")
"""S O W E; idle ms, record, replica."""

LOAD: Final = Script("""
local found = redis.call('HMGET', KEYS[1], 'r', 'l')
if not found[1] then return false end
redis.call('SADD', KEYS[2], ARGV[2])
for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
return found
""")
"""S O W E; idle ms, replica. The record and the log level, nil for an unknown session."""

TOUCH: Final = Script("""
for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
return 1
""")
"""S O W E; idle ms."""

END: Final = Script("""
local was = redis.call('EXISTS', KEYS[1])
local owners = redis.call('SMEMBERS', KEYS[2])
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
if was == 0 then return false end
return owners
""")
"""S O W E. The owners, nil for an unknown session."""

SET_FIELD: Final = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
""")
"""S; field, value. Never brings a session back that has ended."""

CLAIM: Final = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local standing = redis.call('HGET', KEYS[1], ARGV[1])
if standing and (ARGV[3] == '' or standing ~= ARGV[3]) then return standing end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return ARGV[2]
""")
"""S; field, claim, the claim it may replace or nothing. The claim that stands, nil for an unknown session."""

CLAIMS: Final = Script("""
local kept = {}
local found = redis.call('HGETALL', KEYS[1])
for i = 1, #found, 2 do
  if string.sub(found[i], 1, 2) == 'c:' then
    kept[#kept + 1] = found[i]
    kept[#kept + 1] = found[i + 1]
  end
end
return kept
""")
"""S. Fields and claims in turn."""

UNCLAIM: Final = Script("""
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
""")
"""S; field, the claim it holds."""

JOIN: Final = Script("""
local left = redis.call('PTTL', KEYS[1])
if left < 0 then return 0 end
for i = 2, #KEYS do
  redis.call('SADD', KEYS[i], ARGV[1])
  redis.call('PEXPIRE', KEYS[i], left)
end
return 1
""")
"""S and sets; member. Nothing for an unknown session."""

KEEP: Final = Script("""
local left = redis.call('PTTL', KEYS[1])
if left < 0 then return 0 end
for i = 3, #ARGV, 3 do
  redis.call('XADD', KEYS[2], '*', 's', ARGV[i], 'p', ARGV[i + 1], 'm', ARGV[i + 2])
  local bytes = redis.call('HINCRBY', KEYS[1], 'b', #ARGV[i + 2])
  local count = redis.call('XLEN', KEYS[2])
  while count > 0 and (count > tonumber(ARGV[1]) or bytes > tonumber(ARGV[2])) do
    local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
    redis.call('XDEL', KEYS[2], oldest[1])
    bytes = redis.call('HINCRBY', KEYS[1], 'b', -#oldest[2][6])
    count = count - 1
  end
end
redis.call('PEXPIRE', KEYS[2], left)
return 1
""")
"""S E; greatest number of events, of their bytes, then stream, position and message of each."""

REPLAY: Final = Script("""
local kept = {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
  if entry[2][2] == ARGV[1] then
    kept[#kept + 1] = entry[2][4]
    kept[#kept + 1] = entry[2][6]
  end
end
return kept
""")
"""E; stream. Positions and messages in turn."""

BEAT: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local until_ms = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local found = redis.call('ZRANGE', KEYS[1], 0, -1)
if until_ms and tonumber(until_ms) > now then found[#found + 1] = '1' else found[#found + 1] = '0' end
return found
""")
"""The set of replicas; replica, ms it lives on. All that live, and last whether this one did."""

HOLD: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local function others(kind)
  local sum = 0
  local held = redis.call('HGETALL', KEYS[kind])
  for i = 1, #held, 2 do
    if held[i] ~= ARGV[1] then
      if redis.call('ZSCORE', KEYS[1], held[i]) then
        sum = sum + held[i + 1]
      else
        redis.call('HDEL', KEYS[kind], held[i])
      end
    end
  end
  return sum
end
if ARGV[6] then
  if others(2) + ARGV[5] > tonumber(ARGV[7]) then return 0 end
  if others(3) + ARGV[4] > tonumber(ARGV[6]) then return 0 end
end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[5])
if ARGV[4] == '0' then
  redis.call('HDEL', KEYS[3], ARGV[1])
else
  redis.call('HSET', KEYS[3], ARGV[1], ARGV[4])
end
for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[3]) end
return 1
""")
"""Until when replicas are believed (a sorted set), what each holds in all, what each holds of one caller (hashes);
replica, ms it is believed, ms the keys live on, what it holds of the caller and in all, and perhaps the most of both
that all replicas may hold together. 0 when that would be exceeded."""

OPEN_INBOX: Final = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('XDEL', KEYS[1], redis.call('XADD', KEYS[1], '*', 'm', ''))
  redis.call('SET', KEYS[2], 0)
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 1
""")
"""An inbox and the bytes in it; ms it lives on without its replica. An empty stream is a key all the same."""

SEND: Final = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local length = redis.call('XLEN', KEYS[1])
local bytes = 0
for i = 3, #ARGV do bytes = bytes + #ARGV[i] end
local held = tonumber(redis.call('GET', KEYS[2]) or 0)
if length + #ARGV - 2 > tonumber(ARGV[1]) or (length > 0 and held + bytes > tonumber(ARGV[2])) then return 0 end
for i = 3, #ARGV do redis.call('XADD', KEYS[1], '*', 'm', ARGV[i]) end
redis.call('SET', KEYS[2], held + bytes, 'KEEPTTL')
return 1
""")
"""An inbox and the bytes in it; most letters in it, most bytes, then the letters."""

CLEAR: Final = Script("""
redis.call('XDEL', KEYS[1], unpack(ARGV, 2))
local held = tonumber(redis.call('GET', KEYS[2]) or 0)
if held > 0 then redis.call('SET', KEYS[2], math.max(0, held - tonumber(ARGV[1])), 'KEEPTTL') end
return 1
""")
"""An inbox and the bytes in it; the bytes of letters that were read, then their numbers."""
