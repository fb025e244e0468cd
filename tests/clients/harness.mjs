// Runs the real gateway for the tests of real clients.
//
// A `Gateway` is one process of the binary, started as an operator starts it: in a directory of
// its own, with a `.env` in the words of a Laravel application, and with nothing else of the
// caller's environment. A `fact` is a test that prints the gateways' logs when it fails.

import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import Publisher from 'pusher';

export const APP = { id: '248163', key: 'ringwave-test-key', secret: 'ringwave-test-secret' };
export const ENCRYPTION_KEY = Buffer.alloc(32, 'ringwave').toString('base64');

const APP_VARIABLES = {
    REVERB_APP_ID: APP.id,
    REVERB_APP_KEY: APP.key,
    REVERB_APP_SECRET: APP.secret,
};

const REPOSITORY = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
export const TARGET = path.resolve(REPOSITORY, process.env.CARGO_TARGET_DIR ?? 'target');

// Several on any machine, so that clients of one channel meet across shards.
const SHARDS = '3';
const START_MS = 20_000;
const STOP_MS = 15_000;
const FACT_MS = 60_000;
const LOG_TAIL_BYTES = 8_192;

const running = new Set();
process.once('exit', () => running.forEach((gateway) => gateway.discard()));
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

export class Gateway {
    /**
     * Starts a gateway and waits until it answers.
     *
     * - `settings`: lines of the `.env`, besides those of the test's app
     * - `flags`: added to `ringwave start --shards 3`
     * - `allowedOrigins`: describes the app in a `ringwave.toml`, since Reverb has no variable
     * - `port`: taken from the free ones when absent
     * - `socket`: listens on a unix socket only, no port
     */
    static async start(options = {}) {
        const gateway = new Gateway(options, options.port ?? (await freePort()));
        running.add(gateway);
        try {
            await gateway.#untilUp();
        } catch (error) {
            console.error(gateway.logTail());
            gateway.discard();
            throw error;
        }
        return gateway;
    }

    constructor({ settings = {}, flags = [], allowedOrigins, socket = false }, port) {
        this.port = port;
        this.directory = fs.mkdtempSync(path.join(os.tmpdir(), 'ringwave-'));
        this.socketPath = socket ? path.join(this.directory, 'ringwave.sock') : undefined;
        this.prefix = settings.REVERB_SERVER_PATH ?? '';
        const app = allowedOrigins ? {} : APP_VARIABLES;
        this.#write('.env', dotenv({ ...app, ...this.#address(), ...settings }));
        if (allowedOrigins) this.#write('ringwave.toml', appTable(allowedOrigins));

        const listen = socket ? ['--listen', `unix://${this.socketPath}`] : [];
        this.log = fs.openSync(path.join(this.directory, 'log'), 'w+');
        this.process = spawn(binary(), ['start', '--shards', SHARDS, ...listen, ...flags], {
            cwd: this.directory,
            env: { PATH: process.env.PATH, HOME: this.directory, RUST_BACKTRACE: '1' },
            stdio: ['ignore', this.log, this.log],
        });
        this.exited = new Promise((resolve) => {
            this.process.once('error', (error) => resolve(error.message));
            this.process.once('exit', (code, signal) => resolve(code ?? signal));
        });
    }

    /** The official publisher, signing as this gateway's app. */
    publisher(options = {}) {
        return new Publisher({
            appId: APP.id,
            key: APP.key,
            secret: APP.secret,
            host: '127.0.0.1',
            port: this.port,
            useTLS: false,
            timeout: 20_000,
            encryptionMasterKeyBase64: ENCRYPTION_KEY,
            ...options,
        });
    }

    /** Asks the process to end, as a supervisor does, and answers its exit code. */
    async terminate() {
        this.process.kill('SIGTERM');
        const ended = await Promise.race([this.exited, elapsed(STOP_MS)]);
        if (ended === TIMED_OUT) {
            this.kill();
            throw new Error(`the gateway still ran ${STOP_MS} ms after SIGTERM`);
        }
        running.delete(this);
        return ended;
    }

    /** Ends the gateway after the last test of a file: anything but a clean exit is a failure. */
    async stop() {
        if (running.has(this)) {
            const code = await this.terminate();
            if (code !== 0) {
                console.error(this.logTail());
                throw new Error(`the gateway ended with ${code} instead of 0`);
            }
        }
        fs.closeSync(this.log);
        this.#removeDirectory();
    }

    kill() {
        this.process.kill('SIGKILL');
        running.delete(this);
    }

    /** Leaves nothing behind, however the tests end. */
    discard() {
        this.kill();
        this.#removeDirectory();
    }

    logTail() {
        const length = fs.fstatSync(this.log).size;
        const tail = Buffer.alloc(Math.min(length, LOG_TAIL_BYTES));
        fs.readSync(this.log, tail, 0, tail.length, length - tail.length);
        return `--- log of the gateway (pid ${this.process.pid}, port ${this.port})\n${tail}---`;
    }

    async #untilUp() {
        const deadline = Date.now() + START_MS;
        const where = this.socketPath
            ? { socketPath: this.socketPath }
            : { host: '127.0.0.1', port: this.port };
        for (;;) {
            if ((await statusOf({ ...where, path: `${this.prefix}/up` })) === 200) return;
            const ended = await Promise.race([this.exited, elapsed(50)]);
            if (ended !== TIMED_OUT) throw new Error(`the gateway did not start: ${ended}`);
            if (Date.now() > deadline) throw new Error(`no answer on /up within ${START_MS} ms`);
        }
    }

    #address() {
        return { REVERB_SERVER_HOST: '127.0.0.1', REVERB_SERVER_PORT: this.port };
    }

    #removeDirectory() {
        fs.rmSync(this.directory, { recursive: true, force: true });
    }

    #write(name, text) {
        fs.writeFileSync(path.join(this.directory, name), text);
    }
}

/** A Redis of a test's own, on a free port of the loopback interface. */
export class Redis {
    /** Starts it and waits until it listens; `undefined` where there is no redis-server. */
    static async start() {
        if (spawnSync('redis-server', ['--version']).error) return undefined;
        const redis = new Redis(await freePort());
        running.add(redis);
        const deadline = Date.now() + START_MS;
        while (!(await isListening(redis.port))) {
            if (Date.now() > deadline) throw new Error(`Redis does not listen within ${START_MS} ms`);
            await elapsed(20);
        }
        return redis;
    }

    constructor(port) {
        this.port = port;
        const options = ['--bind', '127.0.0.1', '--port', port, '--save', '', '--appendonly', 'no'];
        this.process = spawn('redis-server', options, { cwd: os.tmpdir(), stdio: 'ignore' });
    }

    /** The lines of a Laravel application's `.env` that make gateways one server over it. */
    get settings() {
        return {
            REVERB_SCALING_ENABLED: 'true',
            REDIS_HOST: '127.0.0.1',
            REDIS_PORT: this.port,
        };
    }

    discard() {
        this.process.kill('SIGKILL');
        running.delete(this);
    }

    /** Nothing that would explain a failure. */
    logTail() {
        return '';
    }
}

function isListening(port) {
    return new Promise((resolve) => {
        const socket = net.connect(port, '127.0.0.1');
        socket.once('error', () => resolve(false));
        socket.once('connect', () => {
            socket.destroy();
            resolve(true);
        });
    });
}

/** A test named as a fact. It gets the test's context, whose `after` ends what it opened. */
export function fact(name, check, { within = FACT_MS } = {}) {
    test(name, async (t) => {
        try {
            const ended = await Promise.race([check(t), elapsed(within)]);
            if (ended === TIMED_OUT) throw new Error(`not shown within ${within} ms`);
        } catch (error) {
            running.forEach((gateway) => console.error(gateway.logTail()));
            throw error;
        }
    });
}

/**
 * Leaves out the test that calls this, which has to return then. scripts/test counts the lines of
 * the file that RINGWAVE_LEFT_OUT names.
 */
export function leaveOut(t, why) {
    if (process.env.RINGWAVE_LEFT_OUT) {
        fs.appendFileSync(process.env.RINGWAVE_LEFT_OUT, `${t.name}: ${why}\n`);
    }
    t.skip(why);
}

/** A port of the loopback interface that nobody listens on. */
export function freePort() {
    return new Promise((resolve, reject) => {
        const probe = net.createServer();
        probe.once('error', reject);
        probe.listen(0, '127.0.0.1', () => {
            const { port } = probe.address();
            probe.close(() => resolve(port));
        });
    });
}

/** The first of these files that exists, or an error that says what is missing. */
export function firstExisting(what, files) {
    const found = files.filter(Boolean).find((file) => fs.existsSync(file));
    if (!found) throw new Error(`${what} not found: looked at ${files.filter(Boolean).join(', ')}`);
    return found;
}

const TIMED_OUT = Symbol('timed out');

function elapsed(ms) {
    return new Promise((resolve) => setTimeout(resolve, ms, TIMED_OUT).unref());
}

/** The executable under test. */
export function binary() {
    if (process.env.RINGWAVE_BIN) return path.resolve(process.env.RINGWAVE_BIN);
    const builds = ['release', 'debug'].map((profile) => path.join(TARGET, profile, 'ringwave'));
    return firstExisting('the ringwave binary (cargo build --release)', builds);
}

function dotenv(settings) {
    return Object.entries(settings)
        .map(([name, value]) => `${name}="${value}"\n`)
        .join('');
}

function appTable(allowedOrigins) {
    return [
        '[[apps]]',
        `app_id = "${APP.id}"`,
        `key = "${APP.key}"`,
        `secret = "${APP.secret}"`,
        `allowed_origins = ${JSON.stringify(allowedOrigins)}`,
        '',
    ].join('\n');
}

function statusOf(options) {
    return new Promise((resolve) => {
        const request = http.get({ ...options, agent: false, timeout: 1_000 }, (response) => {
            response.resume();
            resolve(response.statusCode);
        });
        request.once('timeout', () => request.destroy());
        request.once('error', () => resolve(undefined));
    });
}
