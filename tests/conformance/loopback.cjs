// Preloaded into the conformance suite: its mock servers listen on every interface, here they listen on loopback only.
// Naming a host in `listen` would make it asynchronous, and some mocks read their port at once, so this hooks the step
// that opens the socket.
'use strict';
const net = require('node:net');

const open = net.Server.prototype._listen2;
net.Server.prototype._listen2 = function (address, port, family, ...rest) {
  return address === null && port >= 0
    ? open.call(this, '127.0.0.1', port, 4, ...rest)
    : open.call(this, address, port, family, ...rest);
};
