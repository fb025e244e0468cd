// The part of a Laravel application that clients talk to: `/broadcasting/auth` and
// `/broadcasting/user-auth`, answered with the official publisher's signatures, and the static files
// of a page.
//
// A client that sends `Authorization: Bearer ann` is logged in as ann. Channels whose name contains
// "forbidden" are refused with 403, as a channel callback that returns false does.

import fs from 'node:fs';
import http from 'node:http';
import { after } from 'node:test';
import { Gateway, Redis } from './harness.mjs';

/** A gateway with a publisher and a Laravel application for all tests of a file. */
export async function served(options) {
    const gateway = await Gateway.start(options);
    const publisher = gateway.publisher();
    const app = await LaravelApp.start(publisher);
    after(async () => {
        await app.stop();
        await gateway.stop();
    });
    return { gateway, publisher, app };
}

/**
 * Two gateways over one Redis, with a publisher for each and a Laravel application, for all tests of
 * a file; `undefined` where there is no redis-server.
 */
export async function clustered() {
    const redis = await Redis.start();
    if (!redis) return undefined;
    const start = () => Gateway.start({ settings: redis.settings });
    const gateways = [await start(), await start()];
    const publishers = gateways.map((gateway) => gateway.publisher());
    const app = await LaravelApp.start(publishers[0]);
    after(async () => {
        await app.stop();
        for (const gateway of gateways) await gateway.stop();
        redis.discard();
    });
    return { gateways, publishers, app };
}

export class LaravelApp {
    /** Serves on a free port; `files` maps the path of a URL to a file or to a `Buffer`. */
    static async start(publisher, files = {}) {
        const app = new LaravelApp(publisher, files);
        await new Promise((resolve) => app.server.listen(0, '127.0.0.1', resolve));
        app.url = `http://127.0.0.1:${app.server.address().port}`;
        return app;
    }

    constructor(publisher, files) {
        this.publisher = publisher;
        this.files = files;
        /** Names of the channels that clients asked for, in order. */
        this.asked = [];
        /** The ids on each user's watchlist. */
        this.watchlists = {};
        this.server = http.createServer((request, response) => this.#answer(request, response));
    }

    get authEndpoint() {
        return `${this.url}/broadcasting/auth`;
    }

    get userAuthEndpoint() {
        return `${this.url}/broadcasting/user-auth`;
    }

    stop() {
        this.server.closeAllConnections();
        return new Promise((resolve) => this.server.close(resolve));
    }

    async #answer(request, response) {
        const { pathname } = new URL(request.url, this.url);
        if (request.method === 'POST' && pathname === '/broadcasting/auth') {
            return this.#authorise(request, response);
        }
        if (request.method === 'POST' && pathname === '/broadcasting/user-auth') {
            return this.#authenticate(request, response);
        }
        const file = this.files[pathname];
        if (!file) return reply(response, 404, 'text/plain', 'Not found');
        reply(response, 200, contentType(pathname), file instanceof Buffer ? file : fs.readFileSync(file));
    }

    async #authorise(request, response) {
        const form = new URLSearchParams(await text(request));
        const channel = form.get('channel_name');
        const user = userOf(request);
        this.asked.push(channel);
        if (!user || channel.includes('forbidden')) {
            return reply(response, 403, 'application/json', '{"message":"This action is unauthorized."}');
        }
        const member = channel.startsWith('presence-')
            ? { user_id: user, user_info: { name: user.toUpperCase() } }
            : undefined;
        const signed = this.publisher.authorizeChannel(form.get('socket_id'), channel, member);
        reply(response, 200, 'application/json', JSON.stringify(signed));
    }

    async #authenticate(request, response) {
        const form = new URLSearchParams(await text(request));
        const user = userOf(request);
        const signed = this.publisher.authenticateUser(form.get('socket_id'), {
            id: user,
            user_info: { name: user.toUpperCase() },
            watchlist: this.watchlists[user],
        });
        reply(response, 200, 'application/json', JSON.stringify(signed));
    }
}

function userOf(request) {
    return request.headers.authorization?.replace('Bearer ', '');
}

async function text(request) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    return Buffer.concat(chunks).toString();
}

function reply(response, status, type, body) {
    response.writeHead(status, { 'Content-Type': type });
    response.end(body);
}

function contentType(pathname) {
    return pathname.endsWith('.js') ? 'text/javascript' : 'text/html; charset=utf-8';
}
