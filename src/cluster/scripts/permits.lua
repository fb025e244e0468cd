-- permits APP wanted total
--
-- In a registration it is a claim: what the node holds already, whatever is free.
--
-- From shared.lua: record, tell, text.

local function hold(app, held)
  if held > 0 then
    redis.call('HSET', T .. 'quota:' .. app, N, held)
    redis.call('SADD', T .. 'mo:' .. N, 'q ' .. app)
  else
    redis.call('HDEL', T .. 'quota:' .. app, N)
    redis.call('SREM', T .. 'mo:' .. N, 'q ' .. app)
  end
  tell(N, record('H', { app, text(held) }))
end

-- The permits of an app that the node holds, all that are lent, and the other nodes that hold some.
local function permits_of(app)
  local fields = redis.call('HGETALL', T .. 'quota:' .. app)
  local own, lent, others = 0, 0, {}
  for i = 1, #fields, 2 do
    local held = tonumber(fields[i + 1])
    lent = lent + held
    if fields[i] == N then
      own = held
    else
      others[#others + 1] = fields[i]
    end
  end
  return own, lent, others
end

verbs.permits = function(app, wanted, total)
  wanted, total = tonumber(wanted), tonumber(total)
  local own, lent, others = permits_of(app)
  if KIND == 'r' then
    hold(app, wanted)
  elseif #stale_nodes() > 0 then
    -- A stale node may hold permits that it has not claimed yet.
    hold(app, own)
  elseif lent < total then
    hold(app, own + math.min(wanted, math.max(1, math.floor((total - lent) / 2))))
  else
    hold(app, own)
    tell_all(others, record('V', { app }))
  end
end
