-- join CHAN count flags

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
  local before = count_of(channel, N)
  local vacant = channel_text(channel) == ''
  local total = set_count(channel, N, count)
  if not before then
    redis.call('SADD', T .. 'of:' .. N, channel)
  end
  if has(flags, 'c') then
    redis.call('SADD', T .. 'mo:' .. N, 'c ' .. channel)
  end
  local undone = vacant and undo_departure(channel, '')
  local first = vacant and not undone and not has(flags, 'a')
  local exact = #stale_nodes() == 0
  local ttl_ms, last = last_event(channel)
  local fields = { channel, flag(first), flag(exact), text(total), ttl_ms, last }
  if has(flags, 'p') then
    add_members(fields, channel)
  end
  tell(N, record('J', fields))
  if has(flags, 'c') and before ~= count then
    tell_count(channel, total)
  end
end
