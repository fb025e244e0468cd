// pusher-js as the tests use it: connections, and waits for events.
//
// Nothing here sleeps. That something does *not* arrive is shown by what arrives after it: the
// gateway keeps the order of a channel, so a later event proves that the earlier one was withheld.

import Pusher from 'pusher-js';
import { APP } from './harness.mjs';

/**
 * The longest wait, which only a failure takes. It is long because the processes of a test share
 * a busy machine.
 */
export const ARRIVAL_MS = 20_000;

/** The address and the options of a client, as in Laravel's `bootstrap/echo.js`. */
export function connectionOptions(gateway) {
    return {
        wsHost: '127.0.0.1',
        wsPort: gateway.port,
        wssPort: gateway.port,
        wsPath: gateway.prefix,
        forceTLS: false,
        enabledTransports: ['ws', 'wss'],
    };
}

/** A pusher-js client of `user`; it is disconnected when the test ends. */
export function client(t, gateway, { app, user = 'ann', key = APP.key, ...options } = {}) {
    const pusher = new Pusher(key, {
        cluster: '',
        ...connectionOptions(gateway),
        channelAuthorization: app && {
            endpoint: app.authEndpoint,
            headers: { Authorization: `Bearer ${user}` },
        },
        userAuthentication: app && {
            endpoint: app.userAuthEndpoint,
            headers: { Authorization: `Bearer ${user}` },
        },
        ...options,
    });
    t.after(() => {
        pusher.disconnect();
        // After some closes pusher-js has two timers for its return, and disconnecting stops one: it
        // would come back, and go on for ever when no gateway listens any more.
        pusher.connection.bind('connecting', () => setImmediate(() => pusher.disconnect()));
    });
    return pusher;
}

/** A client that is connected already. */
export async function connected(t, gateway, options) {
    const pusher = client(t, gateway, options);
    await reached(pusher, 'connected');
    return pusher;
}

/** Waits until the connection is in this state. */
export async function reached(pusher, state, options) {
    if (pusher.connection.state !== state) await next(pusher.connection, state, options);
}

/** The channel, once the gateway has confirmed the subscription. */
export function subscribed(pusher, name) {
    const channel = pusher.subscribe(name);
    return within(ARRIVAL_MS, `subscription to ${name}`, (resolve, reject) => {
        channel.bind('pusher:subscription_succeeded', () => resolve(channel));
        channel.bind('pusher:subscription_error', (error) => {
            reject(new Error(`subscription to ${name}: ${JSON.stringify(error)}`));
        });
    });
}

/** A client that is connected and signed in. */
export async function signedIn(t, gateway, options) {
    const pusher = await connected(t, gateway, options);
    const done = next(pusher.connection, 'message', { where: ({ event }) => event === 'pusher:signin_success' });
    pusher.signin();
    await done;
    return pusher;
}

/** Waits for the next such event and returns its payload. Call it before causing the event. */
export function next(source, event, { ms = ARRIVAL_MS, where = () => true } = {}) {
    let listener;
    return within(ms, `${event} on ${source.name ?? 'the connection'}`, (resolve) => {
        listener = (payload) => where(payload) && resolve(payload);
        source.bind(event, listener);
    }).finally(() => source.unbind(event, listener));
}

/** A list that grows by the payload of every such event. */
export function collected(channel, event) {
    const payloads = [];
    channel.bind(event, (payload) => payloads.push(payload));
    return payloads;
}

/** A promise that fails, naming what was missing, when nothing settles it in time. */
export function within(ms, what, start) {
    let timer;
    return new Promise((resolve, reject) => {
        timer = setTimeout(() => reject(new Error(`no ${what} within ${ms} ms`)), ms);
        start(resolve, reject);
    }).finally(() => clearTimeout(timer));
}
