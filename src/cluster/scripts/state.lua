-- state CHAN request payload
--
-- From shared.lua: last_event.
-- From ask.lua: question, tell_asked.
verbs.state = function(channel, request, payload)
  local nodes = audience_of(channel)
  local members = redis.call('HLEN', T .. 'mem:' .. channel)
  local ttl_ms, last = last_event(channel)
  tell_asked(request, members, ttl_ms, last, nodes)
  question(nodes, request, payload)
end
