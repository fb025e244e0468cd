-- The beginning of a call: whether it may run, and what all verbs share. See `wire` for the keys.
local T, N, KIND, NUMBER = ARGV[1], ARGV[2], ARGV[4], tonumber(ARGV[5])
local LEASE_MS, RETENTION_MS, INBOX_BYTES = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

-- Inboxes go by themselves, because they are large: an hour after everything that reads or buries
-- them has ended. A shorter time could be over before a Redis that was away is back with its data.
local INBOX_MS = LEASE_MS + RETENTION_MS + 3600 * 1000

-- If nobody has tended for so long, Redis stood still, was away, or nobody was there.
local STANDSTILL_MS = 2000

-- Webhooks are told of a departure only if nobody returns in this time.
local DEBOUNCE_MS = 3000

-- The unread bytes of a cut inbox: more than any bound, and small enough that additions are exact.
local CUT = 2 ^ 52

do
  local done, cut, dead = unpack(redis.call('HMGET', T .. 'node:' .. N, 'done', 'cut', 'dead'))
  if not done or cut or dead or redis.call('GET', T .. 'epoch') ~= ARGV[3] then
    return 'enter'
  end
  if KIND == 'b' then
    if NUMBER <= tonumber(done) then
      return 'done'
    elseif NUMBER > done + 1 then
      return 'enter'
    end
    redis.call('HSET', T .. 'node:' .. N, 'done', NUMBER)
  end
end

-- Verb -> its function, which takes the arguments of the command.
local verbs = {}

-- The state of the call. Redis is asked once per call where the answer can only change by it.
local call = {
  -- Node -> the strings that make the entry of its inbox.
  inboxes = {},
  -- Channel -> the nodes that are registered for it.
  nodes = {},
  -- Channel -> the lists of `inboxes` that its messages are added to.
  audiences = {},
  -- The nodes in `stale`.
  stale = nil,
  -- The time in milliseconds.
  now = nil,
  -- The registrations that the call may still take out of dead nodes.
  burials = 1000,
}

local function now()
  call.now = call.now or clock()
  return call.now
end

-- The head of an entry: the version, and the call that it comes from.
local HEAD = struct.pack('>Bc0c0I8', 1, N, KIND, NUMBER)

local function inbox(node)
  local parts = call.inboxes[node]
  if not parts then
    parts = { HEAD }
    call.inboxes[node] = parts
  end
  return parts
end

local function tell(node, record)
  local parts = inbox(node)
  parts[#parts + 1] = record
end

local function tell_all(nodes, record)
  for i = 1, #nodes do
    tell(nodes[i], record)
  end
end

-- A record: its letter, its length, and fields with theirs. All fields are strings.
local function record(letter, fields)
  for i = 1, #fields do
    fields[i] = struct.pack('>I4c0', #fields[i], fields[i])
  end
  local body = table.concat(fields)
  return struct.pack('>c1I4', letter, #body) .. body
end

local function flag(set)
  return set and '1' or '0'
end

-- A number as text, without an exponent.
local function text(number)
  return string.format('%.0f', number)
end

local function has(flags, letter)
  return flags:find(letter, 1, true) ~= nil
end

-- The nodes that are registered for a channel.
local function nodes_of(channel)
  local nodes = call.nodes[channel]
  if not nodes then
    nodes = redis.call('HKEYS', T .. 'ch:' .. channel)
    call.nodes[channel] = nodes
  end
  return nodes
end

-- The nodes of a channel have changed.
local function forget_nodes_of(channel)
  call.nodes[channel] = nil
  call.audiences[channel] = nil
end

local function stale_nodes()
  call.stale = call.stale or redis.call('SMEMBERS', T .. 'stale')
  return call.stale
end

local function contains(list, item)
  for i = 1, #list do
    if list[i] == item then
      return true
    end
  end
  return false
end

-- The nodes of a channel, and those that may have subscribers of it though Redis has forgotten it.
local function nodes_of_or_stale(channel)
  local nodes, stale = nodes_of(channel), stale_nodes()
  if #stale == 0 then
    return nodes
  end
  local all = {}
  for i = 1, #nodes do
    all[i] = nodes[i]
  end
  for i = 1, #stale do
    if not contains(nodes, stale[i]) then
      all[#all + 1] = stale[i]
    end
  end
  return all
end

local function all_nodes()
  return redis.call('ZRANGE', T .. 'nodes', 0, -1)
end

-- Whether leases are not to be trusted, because nobody could renew them.
local function stood_still()
  local tended = redis.call('GET', T .. 'tended')
  return not tended or now() - tended > STANDSTILL_MS
end

-- The nodes whose lease runs, of all.
local function living_nodes()
  if stood_still() then
    return all_nodes()
  end
  return redis.call('ZRANGEBYSCORE', T .. 'nodes', '(' .. text(now()), '+inf')
end

-- The last event of a cache channel with its remaining milliseconds, as fields of a record. Other
-- channels are not looked up: the name of a cache channel has `cache-` in it.
local function last_event(channel)
  local key = T .. 'ev:' .. channel
  local event = channel:find('cache-', 1, true) and redis.call('GET', key)
  local ttl_ms = event and redis.call('PTTL', key) or 0
  if ttl_ms <= 0 then
    return '0', ''
  end
  return text(ttl_ms), event
end

-- The key of a departure in `gone`. Without a user id, it is the channel that was vacated.
local function departure(channel, user_id)
  return channel .. '\0' .. user_id
end

-- Remembers a departure until webhooks are to be told.
local function depart(channel, user_id)
  redis.call('ZADD', T .. 'gone', now() + DEBOUNCE_MS, departure(channel, user_id))
end

-- Undoes a departure; returns whether there was one of which webhooks have not been told.
local function undo_departure(channel, user_id)
  return redis.call('ZREM', T .. 'gone', departure(channel, user_id)) == 1
end

-- Deletes an inbox that cannot be completed any more. The node has to enter anew.
local function cut(node)
  redis.call('DEL', T .. 'in:' .. node)
  redis.call('HSET', T .. 'node:' .. node, 'cut', 1, 'unread', CUT)
end

-- A node is not stale any more, be it because it is ready or because it is dead; returns whether it
-- was.
local function leave_stale(node)
  if redis.call('SREM', T .. 'stale', node) == 0 then
    return false
  end
  call.stale, call.audiences = nil, {}
  if #stale_nodes() == 0 then
    tell_all(all_nodes(), record('S', {}))
  end
  return true
end
