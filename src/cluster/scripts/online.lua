-- online USER
--
-- From shared.lua: flag, record.
local function tell_watchers(user, online)
  local watchers = redis.call('SMEMBERS', T .. 'watch:' .. user)
  tell_all(watchers, record('O', { user, flag(online) }))
end

verbs.online = function(user)
  local key = T .. 'user:' .. user
  if redis.call('SADD', key, N) == 0 then
    return
  end
  redis.call('SADD', T .. 'mo:' .. N, 'u ' .. user)
  if redis.call('SCARD', key) == 1 then
    tell_watchers(user, true)
  end
end
