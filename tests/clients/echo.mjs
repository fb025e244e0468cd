// Laravel Echo as the tests use it: a client set up as Laravel's `bootstrap/echo.js` does, and waits
// for what it tells.

import Echo from 'laravel-echo';
import Pusher from 'pusher-js';
import { ARRIVAL_MS, connectionOptions, within } from './clients.mjs';
import { APP } from './harness.mjs';

globalThis.window = { Pusher };

/** Laravel's stub; only the auth endpoint is absolute, since Node has no page to be relative to. */
export function echoOf(t, gateway, app, user) {
    const echo = new Echo({
        broadcaster: 'reverb',
        key: APP.key,
        ...connectionOptions(gateway),
        authEndpoint: app.authEndpoint,
        auth: { headers: { Authorization: `Bearer ${user}` } },
    });
    t.after(() => echo.disconnect());
    return echo;
}

export function subscription(channel) {
    return within(ARRIVAL_MS, `subscription to ${channel.name}`, (resolve, reject) => {
        channel.subscribed(resolve);
        channel.error((error) => reject(new Error(JSON.stringify(error))));
    });
}

export function listened(channel, event) {
    return within(ARRIVAL_MS, `${event} on ${channel.name}`, (resolve) => channel.listen(event, resolve));
}

export function whispered(channel, event) {
    return within(ARRIVAL_MS, `whisper ${event} on ${channel.name}`, (resolve) => {
        channel.listenForWhisper(event, resolve);
    });
}

export function called(channel, callback) {
    return within(ARRIVAL_MS, `${callback} on ${channel.name}`, (resolve) => channel[callback](resolve));
}
