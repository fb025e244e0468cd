-- users CHAN request
--
-- From shared.lua: record, tell.
verbs.users = function(channel, request)
  local fields = redis.call('HKEYS', T .. 'mem:' .. channel)
  table.insert(fields, 1, request)
  tell(N, record('U', fields))
end
