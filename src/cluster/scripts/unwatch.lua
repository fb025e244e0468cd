-- unwatch USER
verbs.unwatch = function(user)
  redis.call('SREM', T .. 'watch:' .. user, N)
  redis.call('SREM', T .. 'mo:' .. N, 'w ' .. user)
end
