-- watch USER
--
-- From shared.lua: flag, record, tell.
verbs.watch = function(user)
  redis.call('SADD', T .. 'watch:' .. user, N)
  redis.call('SADD', T .. 'mo:' .. N, 'w ' .. user)
  local online = redis.call('EXISTS', T .. 'user:' .. user) == 1
  tell(N, record('O', { user, flag(online) }))
end
