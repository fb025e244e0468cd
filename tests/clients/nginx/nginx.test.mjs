// Clients behind nginx, as in production: TLS ends there, and WebSockets and the API share one
// server block. Each test runs with a port as upstream, and with a unix socket.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import https from 'node:https';
import os from 'node:os';
import path from 'node:path';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';
import { connected, next, subscribed } from '../clients.mjs';
import { APP, Gateway, fact, firstExisting, freePort } from '../harness.mjs';
import { LaravelApp } from '../laravel.mjs';

// pusher-js takes no certificate authority under Node, and this process talks to nothing else.
process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';
process.removeAllListeners('warning');

const TEMPLATE = path.join(path.dirname(fileURLToPath(import.meta.url)), 'nginx.conf');
const START_MS = 20_000;

class Nginx {
    static async start(upstream) {
        const nginx = new Nginx(upstream, await freePort());
        await nginx.#untilListening();
        return nginx;
    }

    constructor(upstream, port) {
        this.port = port;
        this.prefix = '';
        this.directory = fs.mkdtempSync(path.join(os.tmpdir(), 'ringwave-nginx-'));
        selfSigned(this.directory);
        const file = path.join(this.directory, 'nginx.conf');
        fs.writeFileSync(file, this.#configuration(upstream));
        const program = firstExisting('nginx', ['/usr/sbin/nginx', '/usr/bin/nginx']);
        this.process = spawn(program, ['-c', file, '-e', 'stderr', '-p', this.directory], {
            stdio: ['ignore', 'inherit', 'inherit'],
        });
        this.exited = new Promise((resolve) => this.process.once('exit', resolve));
        this.agent = new https.Agent({
            ca: fs.readFileSync(path.join(this.directory, 'certificate.pem')),
        });
    }

    async stop() {
        this.process.kill('SIGTERM');
        await this.exited;
        this.agent.destroy();
        fs.rmSync(this.directory, { recursive: true, force: true });
    }

    #configuration(upstream) {
        const names = {
            // As root, nginx would give up its rights and with them this directory.
            user: process.getuid() === 0 ? 'user root;' : '',
            directory: this.directory,
            port: this.port,
            upstream,
            // The character that ends the path of a socket if a path of the request follows.
            separator: upstream.startsWith('http://unix:') ? ':' : '',
        };
        return fs.readFileSync(TEMPLATE, 'utf8').replace(/@(\w+)@/g, (_, name) => names[name]);
    }

    async #untilListening() {
        const deadline = Date.now() + START_MS;
        while (!fs.existsSync(path.join(this.directory, 'nginx.pid'))) {
            if (this.process.exitCode !== null) throw new Error('nginx did not start');
            if (Date.now() > deadline) throw new Error(`nginx not ready within ${START_MS} ms`);
            await new Promise((resolve) => setTimeout(resolve, 20));
        }
    }
}

const overPort = await Gateway.start();
const overSocket = await Gateway.start({ socket: true });
const ways = [
    { way: 'a port', gateway: overPort, nginx: await Nginx.start(`http://127.0.0.1:${overPort.port}`) },
    {
        way: 'a unix socket',
        gateway: overSocket,
        nginx: await Nginx.start(`http://unix:${overSocket.socketPath}`),
    },
];
after(async () => {
    for (const { gateway, nginx } of ways) {
        await nginx.stop();
        await gateway.stop();
    }
});

for (const { way, gateway, nginx } of ways) {
    const publisher = gateway.publisher({
        host: 'localhost',
        port: nginx.port,
        useTLS: true,
        agent: nginx.agent,
    });

    fact(`through nginx over ${way}: wss, a private channel and an event of the API`, async (t) => {
        const { app, pusher } = await secured(t, publisher, nginx, 'ann');
        const channel = await subscribed(pusher, 'private-orders.1');
        assert.deepEqual(app.asked, ['private-orders.1']);
        const arrived = next(channel, 'App\\Events\\OrderShipped');
        await publisher.trigger('private-orders.1', 'App\\Events\\OrderShipped', { order: 1 });
        assert.deepEqual(await arrived, { order: 1 });
    });

    fact(`through nginx over ${way}: presence and client events`, async (t) => {
        const { pusher: ann } = await secured(t, publisher, nginx, 'ann');
        const room = await subscribed(ann, 'presence-room');
        const joined = next(room, 'pusher:member_added');
        const { pusher: ben } = await secured(t, publisher, nginx, 'ben');
        const seenByBen = await subscribed(ben, 'presence-room');
        assert.equal((await joined).id, 'ben');
        const heard = next(room, 'client-typing');
        seenByBen.trigger('client-typing', { who: 'ben' });
        assert.deepEqual(await heard, { who: 'ben' });
        const left = next(room, 'pusher:member_removed');
        ben.disconnect();
        assert.equal((await left).id, 'ben');
    });

    fact(`through nginx over ${way}: a prefix that nginx takes away`, async (t) => {
        const { pusher } = await secured(t, publisher, nginx, 'ann', { wsPath: '/ws' });
        const channel = await subscribed(pusher, 'private-below');
        const arrived = next(channel, 'e');
        const body = JSON.stringify({ name: 'e', channel: 'private-below', data: '"below"' });
        const target = publisher.createSignedQueryString({
            method: 'POST',
            path: `/apps/${APP.id}/events`,
            body,
        });
        const url = `https://localhost:${nginx.port}/ws/apps/${APP.id}/events?${target}`;
        const response = await fetch(url, { method: 'POST', body });
        assert.equal(response.status, 200);
        assert.equal(await arrived, 'below');
    });

    fact(`through nginx over ${way}: the API answers GET, and a wrong secret with 401`, async (t) => {
        const { pusher } = await secured(t, publisher, nginx, 'ann');
        await subscribed(pusher, 'counted');
        const response = await publisher.get({
            path: '/channels/counted',
            params: { info: 'subscription_count' },
        });
        assert.deepEqual(await response.json(), { occupied: true, subscription_count: 1 });
        const impostor = gateway.publisher({
            host: 'localhost',
            port: nginx.port,
            useTLS: true,
            agent: nginx.agent,
            secret: 'another-secret',
        });
        await assert.rejects(impostor.trigger('counted', 'e', {}), { status: 401 });
    });
}

async function secured(t, publisher, nginx, user, options) {
    const app = await LaravelApp.start(publisher);
    t.after(() => app.stop());
    const secure = { app, user, wsHost: 'localhost', forceTLS: true, ...options };
    const pusher = await connected(t, nginx, secure);
    return { app, pusher };
}

function selfSigned(directory) {
    const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
    const files = ['-keyout', 'key.pem', '-out', 'certificate.pem', '-days', '2'];
    execFileSync('openssl', ['req', '-x509', ...key, ...names, ...files], {
        cwd: directory,
        stdio: ['ignore', 'ignore', 'pipe'],
    });
}
