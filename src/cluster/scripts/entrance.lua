-- The entrance of a node into a partition. See `wire` for the contract.
local T, N, PARTITIONS, EPOCH, RUN = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local VERSION, ADDRESS = ARGV[6], ARGV[7]
local BASE, LEASE_MS = tonumber(ARGV[8]), tonumber(ARGV[9])
local KNOWN_AT = 10

local lease_end = clock() + LEASE_MS

-- Sets a value that all nodes share, unless it is there; returns what is there now.
local function shared(key, value)
  redis.call('SET', T .. key, value, 'NX')
  return redis.call('GET', T .. key)
end

-- A hash with a long value is no list: Redis looks a field up by going through a list of all.
local LONG = ('.'):rep(65)

-- Whether the server may have forgotten something since the last entrance: it is empty, or another
-- one.
local function may_have_forgotten()
  local empty = redis.call('EXISTS', T .. 'epoch') == 0
  if RUN == '' or redis.call('GET', T .. 'run') == RUN then
    return empty
  end
  redis.call('SET', T .. 'run', RUN)
  return true
end

-- Every other node gets every message until it has registered anew. The buried ones have nothing
-- that could have been forgotten.
local function make_others_stale()
  for _, node in ipairs(redis.call('ZRANGE', T .. 'nodes', 0, -1)) do
    if node ~= N and redis.call('HEXISTS', T .. 'node:' .. node, 'dead') == 0 then
      redis.call('SADD', T .. 'stale', node)
    end
  end
  for i = KNOWN_AT, #ARGV do
    if redis.call('ZADD', T .. 'nodes', 'NX', lease_end, ARGV[i]) == 1 then
      redis.call('SADD', T .. 'stale', ARGV[i])
    end
  end
end

-- Whether batches have passed the node by: others have made some in this epoch, and none of them
-- knew it.
local function has_missed()
  if redis.call('ZSCORE', T .. 'nodes', N) then
    return false
  end
  for _, node in ipairs(redis.call('ZRANGE', T .. 'nodes', 0, -1)) do
    local base, done = unpack(redis.call('HMGET', T .. 'node:' .. node, 'base', 'done'))
    if done and tonumber(done) > tonumber(base) then
      return true
    end
  end
  return false
end

-- Makes the node known; returns the number of its last batch and the letters of the answer. An
-- answer may be lost, so its letters are owed until the node is ready.
local function introduce()
  local node = T .. 'node:' .. N
  local done, cut, dead, unread, owed =
    unpack(redis.call('HMGET', node, 'done', 'cut', 'dead', 'unread', 'owed'))
  -- Redis has evicted an inbox with unread entries.
  local evicted = (tonumber(unread) or 0) > 0 and redis.call('EXISTS', T .. 'in:' .. N) == 0
  cut = cut or evicted
  if cut then
    redis.call('HDEL', node, 'unread')
  end
  owed = owed or ''
  local letters = ''
  for i, due in ipairs({ not done, not not cut, not not dead, has_missed() }) do
    local letter = ('fcdm'):sub(i, i)
    if due or owed:find(letter) then
      letters = letters .. letter
    end
  end
  if letters:find('[fc]') then
    redis.call('HDEL', node, 'read')
  end
  redis.call('HDEL', node, 'cut', 'dead')
  done = tonumber(done)
  if not done or done < BASE then
    done = BASE
    redis.call('HSET', node, 'base', BASE)
  end
  redis.call('HSET', node, 'version', VERSION, 'done', done, 'owed', letters)
  redis.call('HSET', T .. 'addresses', N, ADDRESS)
  return done, letters
end

local partitions = shared('partitions', PARTITIONS)
if partitions ~= PARTITIONS then
  return redis.error_reply('PARTITIONS ' .. partitions)
end
local doubtful = may_have_forgotten()
if doubtful then
  make_others_stale()
end
local epoch = shared('epoch', EPOCH)
redis.call('HSET', T .. 'channels', '', LONG)
local done, letters = introduce()
-- A node that only was away has everything registered that it had, but for buried members, who have
-- left and return.
if doubtful or letters:find('[fcm]') or RUN == '' then
  redis.call('SADD', T .. 'stale', N)
end
redis.call('ZADD', T .. 'nodes', lease_end, N)
local number = '%.0f'
return { epoch, number:format(done), letters, number:format(lease_end - LEASE_MS) }
