// The official publisher for Python, with pusher-js on both nodes of a cluster.

import assert from 'node:assert/strict';
import { connected, next, subscribed } from '../clients.mjs';
import { fact, leaveOut } from '../harness.mjs';
import { clustered } from '../laravel.mjs';
import { called } from './python.mjs';

const cluster = await clustered();

fact('trigger on either node delivers to clients of both', async (t) => {
    if (!cluster) return leaveOut(t, 'there is no redis-server');
    const { gateways, app } = cluster;
    const pushers = await Promise.all(gateways.map((gateway) => connected(t, gateway, { app })));
    const channels = await Promise.all(pushers.map((pusher) => subscribed(pusher, 'private-py-both')));
    for (const gateway of gateways) {
        const arrived = channels.map((channel) => next(channel, 'headline'));
        const data = { port: gateway.port };
        const event = { channels: 'private-py-both', event_name: 'headline', data };
        assert.deepEqual(await called(gateway, 'trigger', event), { result: {} });
        assert.deepEqual(await Promise.all(arrived), [data, data]);
    }
});

fact('channels_info on either node tells the channels of both', async (t) => {
    if (!cluster) return leaveOut(t, 'there is no redis-server');
    const { gateways } = cluster;
    const pushers = await Promise.all(gateways.map((gateway) => connected(t, gateway)));
    await Promise.all(pushers.map((pusher, at) => subscribed(pusher, `py-own-${at}`)));
    for (const gateway of gateways) {
        const { result } = await called(gateway, 'channels_info', { prefix_filter: 'py-own-' });
        assert.deepEqual(Object.keys(result.channels).sort(), ['py-own-0', 'py-own-1']);
    }
});
