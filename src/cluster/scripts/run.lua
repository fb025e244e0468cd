-- The end of a call: executes the commands, then appends to the inboxes what they had for them.
--
-- From publish.lua: arguments, publish_all, texts.

local FIRST, LAST = 9, #ARGV

-- Fetches the texts of the channels that the call publishes to or joins, because one command of
-- Redis costs less than many.
local function fetch_channels()
  local args, channels, count, at = ARGV, {}, 0, FIRST
  while at <= LAST do
    local verb, channel = args[at], args[at + 1]
    if (verb == 'publish' or verb == 'join') and not texts[channel] then
      texts[channel] = ''
      count = count + 1
      channels[count] = channel
    end
    if not arguments[verb] then
      define_other_verbs()
    end
    at = at + 1 + arguments[verb]
  end
  fetch_texts(channels)
end

local function run_commands()
  local args, at = ARGV, FIRST
  while at <= LAST do
    local verb = args[at]
    if verb == 'publish' then
      at = publish_all(at)
    else
      verbs[verb](args[at + 1], args[at + 2], args[at + 3], args[at + 4], args[at + 5])
      at = at + 1 + arguments[verb]
    end
  end
  if call.finish then
    call.finish()
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

-- The head of an entry: the version, and the call that it comes from.
local HEAD = struct.pack('>Bc0c0I8', 1, N, KIND, NUMBER)

-- The parts of an entry, and their bytes. Lua hashes each string that it makes, byte by byte, and
-- that is most of what an event costs here: so records are passed to Redis as they came. Those that
-- three nodes or more get are put together once, because each part costs each node something too.
local function entry_of(lists)
  local parts, count, size = { HEAD }, 1, #HEAD
  for _, records in ipairs(lists) do
    if #records.nodes > 2 then
      records.joined = records.joined or table.concat(records)
      count = count + 1
      parts[count], size = records.joined, size + #records.joined
    else
      for i = 1, #records do
        local part = records[i]
        count = count + 1
        parts[count], size = part, size + #part
      end
    end
  end
  if count > ARGUMENTS_MAX then
    parts, count = { table.concat(parts) }, 1
  end
  -- The fields of a stream entry are names and values in turns.
  if count % 2 == 1 then
    parts[count + 1] = ''
  end
  return parts, size
end

local function append(node, parts, size)
  local key = T .. 'in:' .. node
  local unread = redis.call('HINCRBY', T .. 'node:' .. node, 'unread', size)
  if unread > INBOX_BYTES then
    cut(node)
  elseif unread == size then
    redis.call('XADD', key, '*', unpack(parts))
    redis.call('PEXPIRE', key, INBOX_MS)
  elseif not redis.call('XADD', key, 'NOMKSTREAM', '*', unpack(parts)) then
    -- Redis has evicted an inbox with unread entries.
    cut(node)
  end
end

fetch_channels()
run_commands()
for node, lists in pairs(lists_by_node()) do
  if not (call.buried and call.buried[node]) then
    append(node, entry_of(lists))
  end
end

return 'done'
