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

for node, parts in pairs(call.inboxes) do
  local key, entry = T .. 'in:' .. node, table.concat(parts)
  local unread = #parts > 1
    and redis.call('HINCRBY', T .. 'node:' .. node, 'unread', #entry)
  if not unread then
    -- An audience without a message.
  elseif unread > INBOX_BYTES then
    cut(node)
  elseif unread == #entry then
    redis.call('XADD', key, '*', 'r', entry)
    redis.call('PEXPIRE', key, INBOX_MS)
  elseif not redis.call('XADD', key, 'NOMKSTREAM', '*', 'r', entry) then
    -- Redis has evicted an inbox with unread entries.
    cut(node)
  end
end

return 'done'
