-- answer node request payload
verbs.answer = function(node, request, payload)
  if redis.call('ZSCORE', T .. 'nodes', node) then
    tell(node, record('W', { N, request, payload }))
  end
end
