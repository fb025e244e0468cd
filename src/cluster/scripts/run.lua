-- The end of a call: executes the commands, then appends to the inboxes what they had for them.

-- Verb -> the number of its arguments.
local ARGUMENTS = {
  join = 3, leave = 2, count = 2, enter = 5, part = 3, publish = 4, online = 1, offline = 1,
  watch = 1, unwatch = 1, state = 3, users = 2, ask = 2, answer = 3, tend = 2, ready = 0, bury = 1,
  permits = 3, ['return'] = 2,
}

local at = 9
while at <= #ARGV do
  local verb = ARGV[at]
  verbs[verb](ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5])
  at = at + 1 + ARGUMENTS[verb]
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

-- Lua hashes each string that it makes, byte by byte, and that is most of what a node costs here.
-- Nodes with the same interests have equal entries, which are put together once.
local last_parts, last_entry = {}, ''

local function entry_of(parts)
  if not equal(parts, last_parts) then
    last_parts, last_entry = parts, table.concat(parts)
  end
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

for node, parts in pairs(call.inboxes) do
  if #parts > 1 then
    append(node, entry_of(parts))
  end
end

return 'done'
