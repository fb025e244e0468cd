-- offline USER
--
-- From online.lua: tell_watchers.

-- Takes a node's part of a user out.
local function sign_out(node, user)
  local key = T .. 'user:' .. user
  if redis.call('SREM', key, node) == 1 and redis.call('EXISTS', key) == 0 then
    tell_watchers(user, false)
  end
end

verbs.offline = function(user)
  redis.call('SREM', T .. 'mo:' .. N, 'u ' .. user)
  sign_out(N, user)
end
