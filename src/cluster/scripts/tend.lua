-- tend read_id read_bytes departures apps
--
-- From shared.lua: all_nodes, now, record, stood_still, tell, text.
-- From bury.lua: is_due.

-- The most departures that one call tells.
local DEPARTURES = 1000

local function renew_leases()
  local nodes = stood_still() and all_nodes() or { N }
  for i = 1, #nodes do
    redis.call('ZADD', T .. 'nodes', now() + LEASE_MS, nodes[i])
  end
  redis.call('SET', T .. 'tended', now())
end

-- Notes how far the node has read its inbox, and drops what it has read. An inbox that should be
-- there, but is not, was evicted.
local function note_read(read_id, read_bytes)
  local node, inbox_key = T .. 'node:' .. N, T .. 'in:' .. N
  local read, unread = unpack(redis.call('HMGET', node, 'read', 'unread'))
  unread = math.max(0, (unread or 0) - math.max(0, read_bytes - (read or 0)))
  redis.call('HSET', node, 'read', read_bytes, 'unread', unread)
  if read_id ~= '' then
    redis.call('XTRIM', inbox_key, 'MINID', read_id)
  end
  if redis.call('PEXPIRE', inbox_key, INBOX_MS) == 0 and unread > 0 then
    cut(N)
  end
end

local function tell_departures()
  local gone = T .. 'gone'
  local due = redis.call('ZRANGEBYSCORE', gone, '-inf', now(), 'LIMIT', 0, DEPARTURES)
  for i = 1, #due do
    tell(N, record('G', { due[i]:match('^(%Z*)%z(.*)$') }))
  end
  if #due > 0 then
    redis.call('ZREM', gone, unpack(due))
  end
end

-- The fields of a hash by their names; empty where there is none.
local function fields_of(key)
  local flat, fields = redis.call('HGETALL', T .. key), {}
  for i = 1, #flat, 2 do
    fields[flat[i]] = flat[i + 1]
  end
  return setmetatable(fields, { __index = function() return '' end })
end

-- Tells the node of all nodes. Returns those that are to be buried.
local function tell_nodes()
  local told, dead = { text(now()) }, {}
  local addresses, apps = fields_of('addresses'), fields_of('apps')
  local nodes = redis.call('ZRANGE', T .. 'nodes', 0, -1, 'WITHSCORES')
  for i = 1, #nodes, 2 do
    local node, lease_end = nodes[i], tonumber(nodes[i + 1])
    local base, done = unpack(redis.call('HMGET', T .. 'node:' .. node, 'base', 'done'))
    for _, field in ipairs({ node, addresses[node], apps[node], base or '', done or '' }) do
      told[#told + 1] = field
    end
    if lease_end <= now() and is_due(node, lease_end) then
      dead[#dead + 1] = node
    end
  end
  tell(N, record('T', told))
  return dead
end

verbs.tend = function(read_id, read_bytes, departures, apps)
  renew_leases()
  redis.call('HSET', T .. 'apps', N, apps)
  note_read(read_id, read_bytes)
  local dead = tell_nodes()
  if departures == '1' then
    tell_departures()
  end
  for i = 1, #dead do
    tell(N, record('D', { dead[i] }))
  end
end
