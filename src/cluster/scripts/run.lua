-- The end of a call: executes the commands, then appends to the inboxes what they had for them.
--
-- From publish.lua: publish.

-- Verb -> the number of its arguments.
local ARGUMENTS = {
  join = 3, leave = 2, count = 2, enter = 5, part = 3, publish = 4, keep = 3, online = 1,
  offline = 1, watch = 1, unwatch = 1, state = 3, users = 2, ask = 2, answer = 3, tend = 4,
  ready = 0, bury = 1, quit = 0, permits = 3, ["return"] = 2,
}

local FIRST = 9
local args, arg_count = ARGV, #ARGV

-- Fetches the nodes of the channels that the call publishes to or joins, because one command of Redis
-- costs less than many.
local function fetch_channels()
  local texts, channels, at = call.channels, {}, FIRST
  while at <= arg_count do
    local verb, channel = args[at], args[at + 1]
    if (verb == 'publish' or verb == 'join') and not texts[channel] then
      texts[channel] = ''
      channels[#channels + 1] = channel
    end
    at = at + 1 + ARGUMENTS[verb]
  end
  fetch_texts(channels)
end

local function run_commands()
  local at = FIRST
  while at <= arg_count do
    local verb = args[at]
    if verb == 'publish' then
      publish(args[at + 1], args[at + 2], args[at + 3], args[at + 4])
    else
      if not verbs[verb] then
        define_other_verbs()
      end
      verbs[verb](args[at + 1], args[at + 2], args[at + 3], args[at + 4], args[at + 5])
    end
    at = at + 1 + ARGUMENTS[verb]
  end
  if call.finish then
    call.finish()
  end
end

local function write_departures()
  local scored = {}
  for key, due in pairs(call.departures) do
    scored[#scored + 1] = due
    scored[#scored + 1] = key
  end
  for from = 1, #scored, 2000 do
    redis.call('ZADD', T .. 'gone', unpack(scored, from, math.min(from + 1999, #scored)))
  end
end

-- Node -> the lists of records for it.
local function lists_by_node()
  local by_node = {}
  for _, records in ipairs(told) do
    for _, node in ipairs(records.nodes) do
      local lists = by_node[node] or {}
      by_node[node] = lists
      lists[#lists + 1] = records
    end
  end
  return by_node
end

local function equal(some, others)
  if #some ~= #others then
    return false
  end
  for i = 1, #some do
    if some[i] ~= others[i] then
      return false
    end
  end
  return true
end

-- The head of an entry: the version, and the call that it comes from.
local HEAD = struct.pack('>Bc0c0I8', 1, N, KIND, NUMBER)

-- Lua hashes each string that it makes, byte by byte, and that is most of what a node costs here.
-- Nodes with the same interests have equal entries, which are put together once.
local last_lists, last_entry = nil, nil

local function entry_of(lists)
  if last_lists and equal(lists, last_lists) then
    return last_entry
  end
  local parts = { HEAD }
  for _, records in ipairs(lists) do
    for i = 1, #records do
      parts[#parts + 1] = records[i]
    end
  end
  last_lists, last_entry = lists, table.concat(parts)
  return last_entry
end

local function append(node, entry)
  local key = T .. 'in:' .. node
  local unread = redis.call('HINCRBY', T .. 'node:' .. node, 'unread', #entry)
  if unread > INBOX_BYTES then
    cut(node)
  elseif unread == #entry then
    redis.call('XADD', key, '*', 'r', entry)
    redis.call('PEXPIRE', key, INBOX_MS)
  elseif not redis.call('XADD', key, 'NOMKSTREAM', '*', 'r', entry) then
    -- Redis has evicted an inbox with unread entries.
    cut(node)
  end
end

fetch_channels()
run_commands()
write_departures()
for node, lists in pairs(lists_by_node()) do
  if not call.buried[node] then
    append(node, entry_of(lists))
  end
end

return 'done'
