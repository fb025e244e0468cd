// A deployment: the gateway is told to end, and another takes its place on the same port.
//
// pusher-js comes back a second after a close with 4102. When that attempt meets a closed port, it
// waits out the 15 s of its attempt before the next one: a client that is away for that long has
// come while no gateway listened.

import assert from 'node:assert/strict';
import { execFile, spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after } from 'node:test';
import { promisify } from 'node:util';
import Publisher from 'pusher';
import { client, connected, next, reached, subscribed } from '../clients.mjs';
import { APP, Gateway, binary, fact, freePort, leaveOut } from '../harness.mjs';
import { LaravelApp } from '../laravel.mjs';

const RETURN_MS = 40_000;

/**
 * A client that is away for longer has found the port closed, on which pusher-js waits longer
 * than this.
 */
const AWAY_MS_MAX = 12_000;

// As many as a busy machine bears. The figures in src/manual/restarts.md are those of 300 and
// 1,700.
const PUSHERS = Number(process.env.RESTART_PUSHERS ?? 30);
const RAW_CLIENTS = Number(process.env.RESTART_RAW_CLIENTS ?? 100);

let gateway = await Gateway.start();
const app = await LaravelApp.start(gateway.publisher());
after(async () => {
    await app.stop();
    await gateway.stop();
});

fact('SIGTERM closes with 4102, the process ends with 0, and clients return by themselves', async (t) => {
    const clients = [];
    for (const user of ['ann', 'ben', 'cleo']) {
        const pusher = await connected(t, gateway, { app, user });
        const channel = await subscribed(pusher, 'private-orders.1');
        const room = await subscribed(pusher, 'presence-room');
        clients.push({ pusher, channel, room, before: pusher.connection.socket_id });
    }
    const closes = clients.map(({ pusher }) => next(pusher.connection, 'error', { ms: 15_000 }));

    const old = gateway;
    assert.equal(await old.terminate(), 0);
    for (const { data } of await Promise.all(closes)) assert.equal(data.code, 4102);

    const resubscribed = clients.flatMap(({ channel, room }) =>
        [channel, room].map((each) => next(each, 'pusher:subscription_succeeded', { ms: RETURN_MS })),
    );
    gateway = await Gateway.start({ port: old.port });
    await old.stop();
    await Promise.all(resubscribed);
    for (const { pusher, before } of clients) {
        await reached(pusher, 'connected');
        assert.notEqual(pusher.connection.socket_id, before);
    }

    const arrived = clients.map(({ channel }) => next(channel, 'App\\Events\\OrderShipped'));
    await gateway.publisher().trigger('private-orders.1', 'App\\Events\\OrderShipped', { id: 1 });
    assert.deepEqual(await Promise.all(arrived), Array(3).fill({ id: 1 }));

    const { users } = await (await gateway.publisher().get({ path: '/channels/presence-room/users' })).json();
    assert.deepEqual(users.map(({ id }) => id).sort(), ['ann', 'ben', 'cleo']);
}, { within: 60_000 });

fact('a gateway with connected clients that are silent still ends within 10 s', async (t) => {
    const idle = await Gateway.start();
    const pushers = [];
    for (let count = 0; count < 20; count += 1) pushers.push(await connected(t, idle));
    const closes = pushers.map((pusher) => next(pusher.connection, 'error'));
    const started = Date.now();
    assert.equal(await idle.terminate(), 0);
    assert.ok(Date.now() - started < 10_000, `took ${Date.now() - started} ms`);
    await Promise.all(closes);
    const returning = pushers.map((pusher) => reached(pusher, 'connecting', { ms: RETURN_MS }));
    await idle.stop();
    // pusher-js has two timers for its return, of which disconnecting before it stops one: it would
    // go on for ever against a closed port.
    const second = await Gateway.start({ port: idle.port });
    await Promise.all(returning);
    await disconnected(pushers);
    await second.terminate();
});

fact('a client that comes while the gateway stops is held until the end, and returns after it', async (t) => {
    const first = await Gateway.start({ settings: { RINGWAVE_SHUTDOWN_WINDOW: 4 } });
    const early = await connected(t, first);
    const closed = next(early.connection, 'error');
    first.process.kill('SIGTERM');
    while (!first.logTail().includes('Gracefully terminating')) await new Promise(setImmediate);
    const late = client(t, first);
    const told = next(late.connection, 'error');
    assert.equal((await closed).data.code, 4102);
    // This client was refused in its handshake, so pusher-js has the code one level deeper.
    assert.equal((await told).error.data.code, 4102);
    assert.equal(late.connection.socket_id, undefined);
    assert.equal(await first.exited, 0);
    const second = await Gateway.start({ port: first.port });
    await disconnected([early, late]);
    await second.terminate();
});

/** Waits until all are connected once more, and disconnects them. */
async function disconnected(pushers) {
    await Promise.all(pushers.map((pusher) => reached(pusher, 'connected', { ms: RETURN_MS })));
    pushers.forEach((pusher) => pusher.disconnect());
}

fact('after a restart by supervisor everybody is back at once', async (t) => {
    if (spawnSync('supervisord', ['--version']).error) {
        return leaveOut(t, 'supervisor is not installed');
    }
    const supervisor = await Supervisor.start();
    const pushers = Array.from({ length: PUSHERS }, () => client(t, supervisor));
    const raw = Array.from({ length: RAW_CLIENTS }, () => new RawClient(supervisor.port));
    t.after(async () => {
        // The clients go first, because pusher-js goes on for ever if it is disconnected while the
        // port is closed.
        pushers.forEach((pusher) => pusher.disconnect());
        raw.forEach((each) => each.stop());
        await supervisor.stop();
    });
    await Promise.all(pushers.map((pusher) => reached(pusher, 'connected')));
    await Promise.all(raw.map((each) => each.connected()));

    const publishing = publishUntilStopped(supervisor.port);
    const back = [...pushers.map(returnOf), ...raw.map((each) => each.connected())];
    const started = Date.now();
    await supervisor.restart();
    const restarted = Date.now() - started;
    const times = (await Promise.all(back)).map((at) => at - started);
    const { failed, outage } = await publishing.stop();

    times.sort((one, other) => one - other);
    t.diagnostic(`${times.length} clients: the last is back after ${times.at(-1)} ms, restart ${restarted} ms`);
    t.diagnostic(`${failed} publishes failed, within ${outage} ms`);
    // The timers of clients on a busy machine are late: a few may meet the closed port.
    const most = times[Math.floor(times.length * 0.9)];
    assert.ok(most < AWAY_MS_MAX, `a tenth of the clients is away for ${most} ms`);
    assert.ok(outage < AWAY_MS_MAX, `publishes failed for ${outage} ms`);
}, { within: 120_000 });

/** Waits until a connected client has lost its connection and is connected again. */
async function returnOf(pusher) {
    await next(pusher.connection, 'error', { ms: RETURN_MS });
    await next(pusher.connection, 'connected', { ms: RETURN_MS });
    return Date.now();
}

/**
 * A client that answers its Close frame, comes back a second after each end or failure, and does
 * nothing else. It works on bytes, so that thousands of clients cost the test less than the
 * gateway.
 */
class RawClient {
    constructor(port) {
        this.port = port;
        this.waiting = [];
        this.#open();
    }

    #open() {
        this.socket = net.connect(this.port, '127.0.0.1');
        this.socket.write(
            `GET /app/${APP.key}?protocol=7 HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\n` +
                'Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n' +
                'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
        );
        this.socket.on('error', () => {});
        this.socket.on('close', () => {
            this.timer = setTimeout(() => this.#open(), 1_000);
        });
        this.socket.on('data', (bytes) => {
            if (bytes.includes('pusher:error')) this.socket.end(CLOSE);
            if (!bytes.includes('pusher:connection_established')) return;
            this.waiting.splice(0).forEach((resolve) => resolve(Date.now()));
        });
    }

    /** Waits until the client is connected the next time. */
    connected() {
        return new Promise((resolve) => this.waiting.push(resolve));
    }

    stop() {
        this.socket.removeAllListeners('close');
        this.socket.destroy();
        clearTimeout(this.timer);
    }
}

/** A masked Close frame without a code. */
const CLOSE = Buffer.from([0x88, 0x80, 0, 0, 0, 0]);

/** Publishes every 25 ms, each on a connection of its own, as PHP does. */
function publishUntilStopped(port) {
    const publisher = publisherAt(port);
    const failures = [];
    let stopped = false;
    const loop = (async () => {
        while (!stopped) {
            const at = Date.now();
            await publisher.trigger('room', 'e', {}).catch(() => failures.push(at, Date.now()));
            await new Promise((resolve) => setTimeout(resolve, 25));
        }
    })();
    return {
        async stop() {
            stopped = true;
            await loop;
            const outage = failures.length ? failures.at(-1) - failures[0] : 0;
            return { failed: failures.length / 2, outage };
        },
    };
}

function publisherAt(port) {
    const { id: appId, key, secret } = APP;
    return new Publisher({ appId, key, secret, host: '127.0.0.1', port, useTLS: false, timeout: 20_000 });
}

/** The program of `tuning/supervisor.conf`, in a supervisord of its own. */
class Supervisor {
    static async start() {
        const supervisor = new Supervisor(await freePort());
        const publisher = publisherAt(supervisor.port);
        for (;;) {
            const up = await publisher.get({ path: '/channels' }).then(() => true, () => false);
            if (up) return supervisor;
            await new Promise((resolve) => setTimeout(resolve, 50));
        }
    }

    constructor(port) {
        this.port = port;
        this.prefix = '';
        this.directory = fs.mkdtempSync(path.join(os.tmpdir(), 'ringwave-supervisor-'));
        const at = (name) => path.join(this.directory, name);
        const shipped = fs.readFileSync(new URL('../../../tuning/supervisor.conf', import.meta.url), 'utf8');
        const program = shipped
            .replace('/usr/local/bin/ringwave', binary())
            .replace('/var/www/app', this.directory)
            .replace('/var/log/supervisor/ringwave.log', at('ringwave.log'))
            // Only root may become another user.
            .replace('user=www-data\n', '');
        this.configuration = at('supervisord.conf');
        fs.writeFileSync(
            this.configuration,
            `[supervisord]\nnodaemon=true\nlogfile=${at('log')}\npidfile=${at('pid')}\n` +
                `[unix_http_server]\nfile=${at('control')}\n` +
                `[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = ` +
                `supervisor.rpcinterface:make_main_rpcinterface\n` +
                `[supervisorctl]\nserverurl=unix://${at('control')}\n${program}`,
        );
        fs.writeFileSync(
            at('.env'),
            `REVERB_APP_ID=${APP.id}\nREVERB_APP_KEY=${APP.key}\nREVERB_APP_SECRET=${APP.secret}\n` +
                `REVERB_SERVER_HOST=127.0.0.1\nREVERB_SERVER_PORT=${port}\nRINGWAVE_SHARDS=2\n`,
        );
        this.process = spawn('supervisord', ['-c', this.configuration], { stdio: 'ignore' });
        this.exited = new Promise((resolve) => this.process.once('exit', resolve));
    }

    async restart() {
        await promisify(execFile)('supervisorctl', ['-c', this.configuration, 'restart', 'ringwave']);
    }

    async stop() {
        this.process.kill('SIGTERM');
        await this.exited;
        fs.rmSync(this.directory, { recursive: true, force: true });
    }
}
