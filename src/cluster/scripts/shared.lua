-- What the verbs other than publish share.
--
-- From clock.lua: clock.
-- From publish.lua: arguments, audiences.

for verb, count in pairs({
  join = 3, leave = 2, count = 2, enter = 5, part = 3, keep = 3, online = 1, offline = 1,
  watch = 1, unwatch = 1, state = 3, users = 2, ask = 2, answer = 3, tend = 4, ready = 0,
  bury = 1, quit = 0, permits = 3, ["return"] = 2,
}) do
  arguments[verb] = count
end

-- More of the state of the call. Node -> the list of only this node.
call.alone = {}
-- Departure -> the time at which it is due, if it is not in `gone` yet.
call.departures = {}
-- Node -> the bytes of the call's answers to its questions.
call.answers = {}
-- The bytes of members that the call has listed.
call.member_bytes = 0
-- Whether members were not listed for their bytes. The caller asks again for what was inexact when
-- it is told that no node is stale.
call.withheld = false
-- The registrations that the call may still take out of dead nodes: some milliseconds of work, in
-- which Redis does nothing else.
call.burials = 200
-- The channels whose texts are to be written.
call.changed = {}
-- Channel -> whether the node of the call is registered for it, if that is to be written.
call.interest = {}

-- Webhooks are told of a departure only if nobody returns in this time.
local DEBOUNCE_MS = 3000

-- If nobody has tended for so long, Redis stood still, was away, or nobody was there.
local STANDSTILL_MS = 2000

local function now()
  call.now = call.now or clock()
  return call.now
end

local function tell(node, record)
  call.alone[node] = call.alone[node] or { node }
  tell_all(call.alone[node], record)
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

-- The counts of a channel's nodes, in their order.
local function counts_of(channel)
  local counts, list = {}, channel_text(channel):match(' (.*)')
  for i = 1, list and 0 or #nodes_of(channel) do
    counts[i] = '1'
  end
  for count in (list or ''):gmatch('%d+') do
    counts[#counts + 1] = count
  end
  return counts
end

-- The count of a node in a channel; nil if it is not registered.
local function count_of(channel, node)
  -- Most channels have one node, as those of one user each have.
  if channel_text(channel) == node then
    return '1'
  end
  local nodes = nodes_of(channel)
  for i = 1, #nodes do
    if nodes[i] == node then
      return counts_of(channel)[i]
    end
  end
  return nil
end

local function write_text(channel, text)
  call.channels[channel], call.changed[channel] = text, true
end

-- Sets the count of a node in a channel; without a count the node is taken out. Returns the sum of
-- all counts.
local function set_count(channel, node, count)
  local before = channel_text(channel)
  if (before == '' or before == node) and (count or '1') == '1' then
    write_text(channel, count and node or '')
    return count and 1 or 0
  end
  local old_nodes, old_counts = nodes_of(channel), counts_of(channel)
  local nodes, counts, total = {}, {}, 0
  local function add(id, its_count)
    nodes[#nodes + 1], counts[#counts + 1] = id, its_count
    total = total + its_count
  end
  for i = 1, #old_nodes do
    if count and node < old_nodes[i] then
      add(node, count)
      count = nil
    end
    if old_nodes[i] ~= node then
      add(old_nodes[i], old_counts[i])
    end
  end
  if count then
    add(node, count)
  end
  local ids, list = table.concat(nodes), table.concat(counts, ',')
  local ones = not (list:find('[^1,]') or list:find('11', 1, true))
  write_text(channel, ones and ids or ids .. ' ' .. list)
  return total
end

-- Calls a function with the elements of a list, as many at once as Redis may get.
local function in_parts(list, call_redis)
  for from = 1, #list, ARGUMENTS_MAX do
    call_redis(unpack(list, from, math.min(from + ARGUMENTS_MAX - 1, #list)))
  end
end

-- Writes what has changed of channels: one command of Redis for all of them costs less than many.
local function write_channels()
  local occupied, vacant, joined, left = {}, {}, {}, {}
  for channel in pairs(call.changed) do
    local text = channel_text(channel)
    if text == '' then
      vacant[#vacant + 1] = channel
    else
      occupied[#occupied + 1], occupied[#occupied + 2] = channel, text
    end
  end
  for channel, registered in pairs(call.interest) do
    local list = registered and joined or left
    list[#list + 1] = channel
  end
  call.changed, call.interest = {}, {}
  in_parts(occupied, function(...) redis.call('HSET', T .. 'channels', ...) end)
  in_parts(vacant, function(...) redis.call('HDEL', T .. 'channels', ...) end)
  in_parts(joined, function(...) redis.call('SADD', T .. 'of:' .. N, ...) end)
  in_parts(left, function(...) redis.call('SREM', T .. 'of:' .. N, ...) end)
end

local function write_departures()
  local scored = {}
  for key, due in pairs(call.departures) do
    scored[#scored + 1], scored[#scored + 2] = due, key
  end
  in_parts(scored, function(...) redis.call('ZADD', T .. 'gone', ...) end)
end

-- Ends the commands of the call.
call.finish = function()
  if call.withheld and #stale_nodes() == 0 then
    tell(N, record('S', {}))
  end
  write_channels()
  write_departures()
end

local function all_nodes()
  return redis.call('ZRANGE', T .. 'nodes', 0, -1)
end

-- Whether leases are not to be trusted, because nobody could renew them.
local function stood_still()
  local tended = redis.call('GET', T .. 'tended')
  return not tended or now() - tended > STANDSTILL_MS
end

-- Whether others do not see a node's registrations any more. Its calls are not executed until it
-- has entered.
local function is_buried(node)
  return redis.call('HEXISTS', T .. 'node:' .. node, 'dead') == 1
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
  call.departures[departure(channel, user_id)] = now() + DEBOUNCE_MS
end

-- Undoes a departure; returns whether there was one of which webhooks have not been told.
local function undo_departure(channel, user_id)
  local key = departure(channel, user_id)
  if call.departures[key] then
    call.departures[key] = nil
    return true
  end
  if call.has_gone == nil then
    call.has_gone = redis.call('EXISTS', T .. 'gone') == 1
  end
  return call.has_gone and redis.call('ZREM', T .. 'gone', key) == 1
end

-- A node is not stale any more, be it because it is ready or because it is dead; returns whether it
-- was.
local function leave_stale(node)
  if redis.call('SREM', T .. 'stale', node) == 0 then
    return false
  end
  call.stale = nil
  for text in pairs(audiences) do
    audiences[text] = nil
  end
  if #stale_nodes() == 0 then
    tell_all(all_nodes(), record('S', {}))
  end
  return true
end
