-- join CHAN count flags
--
-- From shared.lua: count_of, flag, has, last_event, record, set_count, tell, text, undo_departure.

-- A call that has listed so many bytes of members lists none of further channels: Redis executes
-- nothing else meanwhile, and the lists have to fit into the inbox.
local MEMBER_BYTES = 4 * 1024 * 1024

-- Whether the answer lists the members of a presence channel. In a registration it does not,
-- because members are missing until all nodes have registered.
local function lists_members()
  if KIND == 'b' and call.member_bytes >= MEMBER_BYTES then
    call.withheld = true
  end
  return KIND == 'b' and call.member_bytes < MEMBER_BYTES
end

-- Adds the texts of a channel's members, which stand behind the number of nodes and a space.
local function add_members(fields, channel)
  local members = redis.call('HVALS', T .. 'mem:' .. channel)
  for i = 1, #members do
    local member = members[i]:sub(members[i]:find(' ', 1, true) + 1)
    fields[#fields + 1] = member
    call.member_bytes = call.member_bytes + #member
  end
end

local function tell_own_count(channel, total)
  tell(N, record('C', { channel, text(total), flag(true) }))
end

-- Tells a channel's nodes the number of its subscriptions. There are two records, however many
-- nodes there are: only the one for the node of the call is marked as its own.
local function tell_count(channel, total)
  local nodes, others = nodes_of(channel), {}
  for i = 1, #nodes do
    if nodes[i] == N then
      tell_own_count(channel, total)
    else
      others[#others + 1] = nodes[i]
    end
  end
  if #others > 0 then
    tell_all(others, record('C', { channel, text(total), flag(false) }))
  end
end

verbs.join = function(channel, count, flags)
  local before = count_of(channel, N)
  local vacant = channel_text(channel) == ''
  local total = set_count(channel, N, count)
  if not before then
    call.interest[channel] = true
  end
  if has(flags, 'c') then
    redis.call('SADD', T .. 'mo:' .. N, 'c ' .. channel)
  end
  local undone = vacant and undo_departure(channel, '')
  local first = vacant and not undone and not has(flags, 'a')
  local listed = has(flags, 'p') and lists_members()
  local complete = KIND == 'b' and (listed or not has(flags, 'p'))
  local exact = complete and #stale_nodes() == 0
  local ttl_ms, last = last_event(channel)
  local fields = { channel, flag(first), flag(exact), text(total), ttl_ms, last }
  if listed then
    add_members(fields, channel)
  end
  tell(N, record('J', fields))
  if has(flags, 'c') and before ~= count then
    tell_count(channel, total)
  end
end
