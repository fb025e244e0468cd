-- bury node
--
-- From shared.lua: count_of, depart, is_buried, leave_stale, now, record, set_count,
--   stood_still, tell, write_channels.
-- From join.lua: tell_count.
-- From leave.lua: unregister.
-- From part.lua: remove_members.
-- From offline.lua: sign_out.

-- Takes out a registration of a node that is in `mo:`, by its letter. Members are not among them.
local forget_mark = {
  -- The node remains interested, but its subscriptions do not count.
  c = function(node, channel)
    if count_of(channel, node) then
      tell_count(channel, set_count(channel, node, '0'))
    end
  end,
  u = function(node, user)
    sign_out(node, user)
  end,
  w = function(node, user)
    redis.call('SREM', T .. 'watch:' .. user, node)
  end,
  q = function(node, app)
    redis.call('HDEL', T .. 'quota:' .. app, node)
  end,
}

-- Takes as much out of a set of registrations as the call may. Any node may take any of them, and
-- each is taken once.
local function take(key)
  if call.burials == 0 then
    return {}
  end
  local taken = redis.call('SPOP', key, call.burials)
  call.burials = call.burials - #taken
  return taken
end

-- The first step: what others see of the node. It cannot be told everything any more if it was
-- stale, because its interest is known in part only.
local function bury_marks(node)
  redis.call('HSET', T .. 'node:' .. node, 'dead', 1)
  if leave_stale(node) then
    cut(node)
  end
  local users = {}
  for _, mark in ipairs(take(T .. 'mo:' .. node)) do
    local letter, rest = mark:sub(1, 1), mark:sub(3)
    if letter == 'm' then
      local channel, user_id = rest:match('^(%Z*)%z(.*)$')
      users[channel] = users[channel] or {}
      table.insert(users[channel], user_id)
    else
      forget_mark[letter](node, rest)
    end
  end
  for channel, user_ids in pairs(users) do
    remove_members(channel, user_ids, true)
  end
end

-- The second step: what the node needs in order to read on. It may return before all of it is taken
-- out, and has missed events of the channels that are taken out by then: so its inbox goes first.
local function bury_interest(node)
  cut(node)
  write_channels()
  local channels = take(T .. 'of:' .. node)
  fetch_texts(channels)
  for _, channel in ipairs(channels) do
    local _, vacated = unregister(node, channel)
    if vacated then
      depart(channel, '')
    end
  end
  if redis.call('EXISTS', T .. 'of:' .. node) == 0 then
    redis.call('DEL', T .. 'node:' .. node)
    redis.call('ZREM', T .. 'nodes', node)
    redis.call('HDEL', T .. 'addresses', node)
    redis.call('HDEL', T .. 'apps', node)
    call.buried = call.buried or {}
    call.buried[node] = true
  end
end

-- Whether there is something to bury of a node, whose lease is over since `lease_end`, now.
local function is_due(node, lease_end)
  return not is_buried(node)
    or redis.call('EXISTS', T .. 'mo:' .. node) == 1
    or lease_end + RETENTION_MS <= now()
end

verbs.bury = function(node)
  local lease_end = redis.call('ZSCORE', T .. 'nodes', node)
  if not lease_end or tonumber(lease_end) > now() or stood_still() then
    return
  end
  bury_marks(node)
  local marks_left = redis.call('EXISTS', T .. 'mo:' .. node) == 1
  if not marks_left and lease_end + RETENTION_MS <= now() then
    bury_interest(node)
  end
  if redis.call('ZSCORE', T .. 'nodes', node) and is_due(node, lease_end) then
    tell(N, record('D', { node }))
  end
end
