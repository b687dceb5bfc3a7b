// Preloaded (`node --import`) into servers that cannot be told an address: they listen on 127.0.0.1 and say which port.
import net from 'node:net';

const listen = net.Server.prototype.listen;

net.Server.prototype.listen = function (port, ...rest) {
  this.once('listening', () => console.log(`interop: listening on http://127.0.0.1:${this.address().port}`));
  return listen.call(this, Number(port), '127.0.0.1', ...rest);
};
