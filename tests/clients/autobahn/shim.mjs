// Makes an echo server of the gateway for Autobahn's fuzzing client, without influencing the
// verdicts.
//
// Autobahn expects every message back. The gateway answers a message that is none of the Pusher
// protocol with `pusher:error`. So the shim sends a `pusher:ping` of its own right behind the last
// frame of each message: the error and the pong in this order say that the gateway has taken
// exactly one message, and for them the client gets its echo. Everything else passes unchanged and
// at once: the client's bytes with their cuts, the gateway's control frames, and on both sides the
// end of TCP, as a half-close or a reset. The pings end with the first bytes that break the
// framing: only the gateway's verdict can follow then.

import net from 'node:net';

const CONTINUATION = 0;
const TEXT = 1;
const BINARY = 2;
const CLOSE = 8;
const PONG = 10;
const FIN = 0x80;
const MASKED = 0x80;
const CONTROL_MAX = 125;
const END_OF_HEAD = '\r\n\r\n';

// The frame is masked with zeros, so that its bytes are those of the text.
const PUSHER_PING = frame(TEXT, Buffer.from('{"event":"pusher:ping","data":{}}'), Buffer.alloc(4));

/** Listens on a free port and connects each client to the gateway on `port`. */
export async function startShim(port) {
    const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
        const gateway = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
        const session = new Session(client, gateway);
        relay(client, gateway, (bytes) => session.fromClient(bytes));
        relay(gateway, client, (bytes) => session.fromGateway(bytes));
    });
    await new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen(0, '127.0.0.1', resolve);
    });
    return server;
}

/**
 * Passes the bytes of a socket on to the other one, and its end: a half-close as a half-close, a
 * reset as a reset.
 */
function relay(from, to, take) {
    from.on('data', take);
    from.on('end', () => to.end());
    from.on('error', () => to.resetAndDestroy());
    to.on('drain', () => from.resume());
}

function send(from, to, bytes) {
    if (bytes.length > 0 && to.writable && !to.write(bytes)) from.pause();
}

class Session {
    #client;
    #gateway;
    #head = true;
    #messages = new ClientMessages();
    #answers = new Answers();
    /** Messages that the gateway has not confirmed, oldest first. */
    #unconfirmed = [];
    #errors = 0;

    constructor(client, gateway) {
        this.#client = client;
        this.#gateway = gateway;
    }

    fromClient(bytes) {
        // The client waits for the answer to its handshake before it sends frames.
        if (this.#head) return send(this.#client, this.#gateway, bytes);
        let sent = 0;
        for (const { end, message } of this.#messages.read(bytes)) {
            this.#unconfirmed.push(message);
            send(this.#client, this.#gateway, bytes.subarray(sent, end));
            send(this.#client, this.#gateway, PUSHER_PING);
            sent = end;
        }
        send(this.#client, this.#gateway, bytes.subarray(sent));
    }

    fromGateway(bytes) {
        for (const { opcode, payload, raw } of this.#answers.read(bytes)) {
            if (opcode === undefined) this.#head = false;
            const answer = opcode === TEXT ? this.#ours(payload) : raw;
            send(this.#gateway, this.#client, answer ?? raw);
        }
    }

    /** The bytes that the client gets for a message of the gateway that the shim itself caused. */
    #ours(payload) {
        const { event } = JSON.parse(payload);
        if (event === 'pusher:connection_established') return Buffer.alloc(0);
        if (event === 'pusher:error' && this.#unconfirmed.length > 0) {
            this.#errors += 1;
            return Buffer.alloc(0);
        }
        const confirmed = event === 'pusher:pong' && this.#errors === 1;
        if (!confirmed || this.#unconfirmed.length === 0) return undefined;
        this.#errors = 0;
        const { opcode, payload: message } = this.#unconfirmed.shift();
        return frame(opcode, message);
    }
}

/**
 * Finds the ends of whole messages in the frames of a client, until one of them breaks the
 * framing.
 */
class ClientMessages {
    #header = Buffer.alloc(0);
    /** The frame whose payload is being read. */
    #frame;
    /** Opcode and pieces of the message that has begun. */
    #message;
    #lost = false;

    /** Yields each whole message of these bytes, with the offset of its end. */
    *read(bytes) {
        let at = 0;
        while (!this.#lost && (at < bytes.length || this.#frame?.left === 0)) {
            if (!this.#frame) {
                at += this.#readHeader(bytes.subarray(at));
                continue;
            }
            const piece = bytes.subarray(at, at + this.#frame.left);
            at += piece.length;
            this.#take(piece);
            if (this.#frame.left > 0) continue;
            const { fin, opcode } = this.#frame;
            this.#frame = undefined;
            if (opcode === CLOSE) this.#lost = true;
            if (opcode >= CLOSE || !fin) continue;
            const message = { opcode: this.#message.opcode, payload: Buffer.concat(this.#message.pieces) };
            this.#message = undefined;
            yield { end: at, message };
        }
    }

    #readHeader(bytes) {
        const held = this.#header.length;
        const known = Buffer.concat([this.#header, bytes.subarray(0, 14)]);
        const header = parsedHeader(known);
        if (!header) {
            this.#header = known;
            return bytes.length;
        }
        this.#header = Buffer.alloc(0);
        this.#frame = header;
        this.#lost = !this.#fits(header);
        if (header.opcode === TEXT || header.opcode === BINARY) {
            this.#message = { opcode: header.opcode, pieces: [] };
        }
        return header.size - held;
    }

    #fits({ fin, reserved, opcode, mask, left }) {
        if (reserved || !mask) return false;
        if (opcode >= CLOSE) return opcode <= PONG && fin && left <= CONTROL_MAX;
        return opcode <= BINARY && (opcode === CONTINUATION) === Boolean(this.#message);
    }

    #take(piece) {
        const { opcode, mask, taken } = this.#frame;
        if (opcode < CLOSE) this.#message.pieces.push(unmasked(piece, mask, taken));
        this.#frame.taken += piece.length;
        this.#frame.left -= piece.length;
    }
}

/** The gateway's answers: first the head of its response, without an opcode, then its frames. */
class Answers {
    #held = Buffer.alloc(0);
    #head = true;

    *read(bytes) {
        this.#held = Buffer.concat([this.#held, bytes]);
        for (;;) {
            const answer = this.#head ? this.#response() : this.#whole();
            if (!answer) return;
            this.#held = this.#held.subarray(answer.raw.length);
            this.#head = false;
            yield answer;
        }
    }

    #response() {
        const end = this.#held.indexOf(END_OF_HEAD);
        return end < 0 ? undefined : { raw: this.#held.subarray(0, end + END_OF_HEAD.length) };
    }

    #whole() {
        const header = parsedHeader(this.#held);
        const end = header && header.size + header.left;
        if (!header || end > this.#held.length) return undefined;
        const payload = this.#held.subarray(header.size, end);
        return { opcode: header.opcode, payload, raw: this.#held.subarray(0, end) };
    }
}

/** The header at the start of these bytes, if it is whole. */
function parsedHeader(bytes) {
    if (bytes.length < 2) return undefined;
    const [first, second] = bytes;
    const short = second & 0x7f;
    const extended = short === 126 ? 2 : short === 127 ? 8 : 0;
    const masked = second & MASKED ? 4 : 0;
    const size = 2 + extended + masked;
    if (bytes.length < size) return undefined;
    const long = extended === 2 ? bytes.readUInt16BE(2) : extended && Number(bytes.readBigUInt64BE(2));
    return {
        fin: Boolean(first & FIN),
        reserved: first & 0x70,
        opcode: first & 0x0f,
        mask: masked ? Buffer.from(bytes.subarray(size - 4, size)) : undefined,
        left: extended ? long : short,
        taken: 0,
        size,
    };
}

function unmasked(piece, mask, taken) {
    const plain = Buffer.from(piece);
    for (let i = 0; i < plain.length; i += 1) plain[i] ^= mask[(taken + i) & 3];
    return plain;
}

/** A final frame. A mask of zeros leaves the payload readable. */
function frame(opcode, payload, mask = Buffer.alloc(0)) {
    const { length } = payload;
    const masked = mask.length > 0 ? MASKED : 0;
    let header = Buffer.from([FIN | opcode, masked | length]);
    if (length > 0xffff) {
        header = Buffer.alloc(10);
        header.writeBigUInt64BE(BigInt(length), 2);
        header.set([FIN | opcode, masked | 127]);
    } else if (length > CONTROL_MAX) {
        header = Buffer.from([FIN | opcode, masked | 126, length >> 8, length & 0xff]);
    }
    return Buffer.concat([header, mask, payload]);
}
