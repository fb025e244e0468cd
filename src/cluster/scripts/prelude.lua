-- The beginning of a call: whether it may run, and its state. See `wire` for the keys.
local T, N, KIND, NUMBER = ARGV[1], ARGV[2], ARGV[4], tonumber(ARGV[5])
local LEASE_MS, RETENTION_MS, INBOX_BYTES = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

-- Inboxes go by themselves, because they are large: an hour after everything that reads or buries
-- them has ended. A shorter time could be over before a Redis that was away is back with its data.
local INBOX_MS = LEASE_MS + RETENTION_MS + 3600 * 1000

-- The most arguments of a command of Redis here. Lua passes some thousand at most, and pairs must
-- not be torn apart.
local ARGUMENTS_MAX = 4000

-- The unread bytes of a cut inbox: more than any bound, and small enough that additions are exact.
local CUT = 2 ^ 52

do
  local done, cut, dead = unpack(redis.call('HMGET', T .. 'node:' .. N, 'done', 'cut', 'dead'))
  if not done or cut or dead or redis.call('GET', T .. 'epoch') ~= ARGV[3] then
    return 'enter'
  end
  if KIND == 'b' then
    if NUMBER <= tonumber(done) then
      return 'done'
    elseif NUMBER > done + 1 then
      return 'enter'
    end
    redis.call('HSET', T .. 'node:' .. N, 'done', NUMBER)
  end
end

-- Verb -> its function, which takes the arguments of the command.
local verbs = {}

-- The state of the call. A command of Redis costs more than most of what happens here, so nothing
-- is asked twice.
local call = {
  -- Channel -> its text in `channels`, empty if there is none.
  channels = {},
  -- Such a text -> the list of the nodes in it. Equal ones have the same list.
  nodes = { [''] = {} },
  -- Such a text -> the list of the nodes that get the events of its channels.
  audiences = {},
  -- The nodes in `stale`.
  stale = nil,
  -- The nodes that are buried to the end; nil if there are none.
  buried = nil,
  -- A function to call behind the last command; nil if there is nothing to do.
  finish = nil,
}

-- What the call has for inboxes, in order: lists of records, each with its `nodes`. Records that
-- follow each other and have the same nodes share a list: most calls publish to few sets of nodes.
local told = {}
local last_records, last_nodes, last_count = nil, nil, 0

local function tell_all(nodes, record)
  if nodes ~= last_nodes then
    last_records, last_nodes, last_count = { nodes = nodes }, nodes, 0
    told[#told + 1] = last_records
  end
  last_count = last_count + 1
  last_records[last_count] = record
end

-- The text of a channel in `channels`: the ids of its nodes in their order, one behind the other,
-- and behind a space the nodes' counts, unless all are 1. A text is fetched at once, and channels
-- with the same nodes have the same one.
local function channel_text(channel)
  local text = call.channels[channel]
  if not text then
    text = redis.call('HGET', T .. 'channels', channel) or ''
    call.channels[channel] = text
  end
  return text
end

-- Fetches the texts of all channels in a list.
local function fetch_texts(channels)
  local texts = call.channels
  for from = 1, #channels, ARGUMENTS_MAX do
    local to = math.min(from + ARGUMENTS_MAX - 1, #channels)
    local fetched = redis.call('HMGET', T .. 'channels', unpack(channels, from, to))
    for i = from, to do
      texts[channels[i]] = fetched[i - from + 1] or ''
    end
  end
end

local function split_ids(ids)
  local nodes = {}
  for at = 1, #ids, #N do
    nodes[#nodes + 1] = ids:sub(at, at + #N - 1)
  end
  return nodes
end

-- The nodes that are registered for a channel. The list is not to be changed.
local function nodes_of(channel)
  local text = channel_text(channel)
  local nodes = call.nodes[text]
  if not nodes then
    local ids = text:match('^%x*')
    nodes = call.nodes[ids] or split_ids(ids)
    call.nodes[ids], call.nodes[text] = nodes, nodes
  end
  return nodes
end

local function stale_nodes()
  call.stale = call.stale or redis.call('SMEMBERS', T .. 'stale')
  return call.stale
end

-- A list of nodes with the stale ones.
local function with_stale(nodes)
  local all, has = {}, {}
  for i = 1, #nodes do
    all[i], has[nodes[i]] = nodes[i], true
  end
  for _, node in ipairs(stale_nodes()) do
    if not has[node] then
      all[#all + 1] = node
    end
  end
  return all
end

-- The nodes of a channel, and those that may have subscribers of it though Redis has forgotten it.
local function audience_of(channel)
  local text = channel_text(channel)
  local nodes = call.audiences[text]
  if not nodes then
    nodes = nodes_of(channel)
    if #stale_nodes() > 0 then
      nodes = with_stale(nodes)
    end
    call.audiences[text] = nodes
  end
  return nodes
end

-- Deletes an inbox that cannot be completed any more. The node has to enter anew.
local function cut(node)
  -- It may be large: Redis frees it in the background.
  redis.call('UNLINK', T .. 'in:' .. node)
  redis.call('HSET', T .. 'node:' .. node, 'cut', 1, 'unread', CUT)
end
