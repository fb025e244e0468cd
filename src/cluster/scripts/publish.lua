-- publish CHAN record ttl_ms retained
--
-- The verb that matters for speed: a node's part of it is one assignment.

-- The inboxes that a channel's messages are added to.
local function audience(channel)
  local inboxes = call.audiences[channel]
  if not inboxes then
    inboxes = {}
    local nodes = nodes_of_or_stale(channel)
    for i = 1, #nodes do
      inboxes[i] = inbox(nodes[i])
    end
    call.audiences[channel] = inboxes
  end
  return inboxes
end

verbs.publish = function(channel, message, ttl_ms, retained)
  if ttl_ms ~= '0' then
    redis.call('SET', T .. 'ev:' .. channel, retained, 'PX', ttl_ms)
  end
  local inboxes = audience(channel)
  for i = 1, #inboxes do
    local parts = inboxes[i]
    parts[#parts + 1] = message
  end
end
