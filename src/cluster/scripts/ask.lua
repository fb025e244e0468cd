-- ask request payload
--
-- From shared.lua: all_nodes, is_buried, living_nodes, record, tell, text.

-- The answer to a question: the nodes that will answer are those of `asked` whose lease runs. A
-- buried one cannot, but has a lease again if all leases started anew.
local function tell_asked(request, members, ttl_ms, last, asked)
  local fields = { request, text(members), ttl_ms, last }
  local living = {}
  for _, node in ipairs(living_nodes()) do
    living[node] = true
  end
  for i = 1, #asked do
    if living[asked[i]] and not is_buried(asked[i]) then
      fields[#fields + 1] = asked[i]
    end
  end
  tell(N, record('K', fields))
end

-- Asks nodes. A silent one gets the question as well, because it may have to act on it once it is
-- back.
local function question(nodes, request, payload)
  tell_all(nodes, record('Q', { N, request, payload }))
end

verbs.ask = function(request, payload)
  local nodes = all_nodes()
  tell_asked(request, 0, '0', '', nodes)
  question(nodes, request, payload)
end
