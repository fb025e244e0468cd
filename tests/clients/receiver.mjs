// The part of an application that takes webhooks. It keeps the requests, byte by byte.

import http from 'node:http';
import { ARRIVAL_MS } from './clients.mjs';

export class WebhookReceiver {
    /** Listens on a free port and answers everything with 200. */
    static async start() {
        const receiver = new WebhookReceiver();
        await new Promise((resolve) => receiver.server.listen(0, '127.0.0.1', resolve));
        receiver.url = `http://127.0.0.1:${receiver.server.address().port}/webhook`;
        return receiver;
    }

    constructor() {
        /** Requests in order: `headers` and `rawBody`. */
        this.requests = [];
        this.waiting = [];
        this.server = http.createServer(async (request, response) => {
            const chunks = [];
            for await (const chunk of request) chunks.push(chunk);
            const rawBody = Buffer.concat(chunks).toString();
            this.requests.push({ headers: request.headers, rawBody });
            response.end();
            this.waiting.forEach((look) => look());
        });
    }

    stop() {
        this.server.closeAllConnections();
        return new Promise((resolve) => this.server.close(resolve));
    }

    /**
     * Waits for the first request with an event that has all of these fields, unless it has come
     * already.
     */
    async with(fields) {
        const fits = (event) => Object.entries(fields).every(([key, value]) => event[key] === value);
        const find = () =>
            this.requests.find(({ rawBody }) => JSON.parse(rawBody).events.some(fits));
        let timer;
        return new Promise((resolve, reject) => {
            const look = () => find() && resolve(find());
            const missing = () => reject(new Error(`no webhook with ${JSON.stringify(fields)}`));
            timer = setTimeout(missing, ARRIVAL_MS);
            this.waiting.push(look);
            look();
        }).finally(() => clearTimeout(timer));
    }
}

/** Settings of a gateway that sends all events to a receiver. */
export function everythingTo(receiver) {
    return {
        RINGWAVE_APP_WEBHOOK_URL: receiver.url,
        RINGWAVE_APP_WEBHOOK_EVENTS: [
            'channel_occupied',
            'channel_vacated',
            'member_added',
            'member_removed',
            'client_event',
            'cache_miss',
            'subscription_count',
        ].join(','),
    };
}
