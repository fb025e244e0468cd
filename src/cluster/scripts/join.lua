-- join CHAN count flags

-- The state of a channel as a node finds it: the sum of the other nodes' counts, the node's own
-- count or nil, and whether nobody was there.
local function counts_of(channel)
  local fields = redis.call('HGETALL', T .. 'ch:' .. channel)
  local others, own = 0, nil
  for i = 1, #fields, 2 do
    if fields[i] == N then
      own = fields[i + 1]
    else
      others = others + fields[i + 1]
    end
  end
  return others, own, #fields == 0
end

-- The texts of a channel's members, behind the number of nodes and a space.
local function add_members(fields, channel)
  local members = redis.call('HVALS', T .. 'mem:' .. channel)
  for i = 1, #members do
    local member = members[i]
    fields[#fields + 1] = member:sub(member:find(' ', 1, true) + 1)
  end
end

local function count_record(node, channel, total)
  return record('C', { channel, text(total), flag(node == N) })
end

-- Tells a channel's nodes the number of its subscriptions.
local function tell_count(channel, total)
  local nodes = nodes_of(channel)
  for i = 1, #nodes do
    tell(nodes[i], count_record(nodes[i], channel, total))
  end
end

verbs.join = function(channel, count, flags)
  local others, own, vacant = counts_of(channel)
  if own ~= count then
    redis.call('HSET', T .. 'ch:' .. channel, N, count)
  end
  if not own then
    redis.call('SADD', T .. 'of:' .. N, channel)
    forget_nodes_of(channel)
  end
  if has(flags, 'c') then
    redis.call('SADD', T .. 'mo:' .. N, 'c ' .. channel)
  end
  local undone = vacant and undo_departure(channel, '')
  local first = vacant and not undone and not has(flags, 'a')
  local exact = #stale_nodes() == 0
  local ttl_ms, last = last_event(channel)
  local fields = { channel, flag(first), flag(exact), text(others + count), ttl_ms, last }
  if has(flags, 'p') then
    add_members(fields, channel)
  end
  tell(N, record('J', fields))
  if has(flags, 'c') and own ~= count then
    tell_count(channel, others + count)
  end
end
