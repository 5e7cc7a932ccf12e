-- Wattkeeper at submit: refuses a request for power that nobody could understand, while its owner is looking.
--
-- A module for a site's own job_submit.lua (how: README.md beside this folder). It reads `power=VALUE` in a comment as
-- wattkeeper/core/request.py does, on whose verdicts tests compare the two. Lua 5.1 to 5.4, no library, no global.

local wattkeeper = {
  profiles = nil, -- the site's profiles, as {"eco", "efficient"}: any other name is then refused. nil: any name passes
  freeze_comments = false, -- true: the comment of a running job stays as it is, but for admins
  admins = {[0] = true}, -- uids that may change what is frozen
}

local GRAMMAR = "write 250W, 250, 0.25kW, 70%, baseline, default, min, max or a profile's name"
local LIMIT = 64 -- characters of a well-formed value

-- --- text: one byte for each character, by what it means here

local SPACE, BREAK, OTHER, KELVIN = "\128", "\129", "\130", "\131"
local SPACES = "\9-\13\28-\32" .. SPACE -- what Unicode calls white space
local BREAKS = "\1-\32\127;,\"'`" .. SPACE .. BREAK -- white space, control characters, quotes, `;` and `,`

local function utf8_of(code)
  local last = string.char(128 + code % 64)
  local rest = math.floor(code / 64)
  if rest < 32 then return string.char(192 + rest) .. last end
  return string.char(224 + math.floor(rest / 64), 128 + rest % 64) .. last
end

local SPACE_CODES, FOLDED = {}, {}
local function fold_range(first, last, into)
  for code = first, last do
    FOLDED[utf8_of(code)] = into
    SPACE_CODES[code] = into == SPACE or nil
  end
end
for _, range in ipairs({{0x80, 0x9f}, {0xab, 0xab}, {0xbb, 0xbb}, {0x2018, 0x201f}, {0x2039, 0x203a}}) do
  fold_range(range[1], range[2], BREAK)
end
for _, range in ipairs({
  {0x85, 0x85}, {0xa0, 0xa0}, {0x1680, 0x1680}, {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f},
  {0x205f, 0x205f}, {0x3000, 0x3000},
}) do
  fold_range(range[1], range[2], SPACE)
end
fold_range(0x212a, 0x212a, KELVIN) -- a K in any case, as Unicode has it

local function fold_run(bytes)
  local parts, at = {}, 1
  while at <= #bytes do
    local size = (FOLDED[bytes:sub(at, at + 1)] and 2) or (FOLDED[bytes:sub(at, at + 2)] and 3)
    parts[#parts + 1] = size and FOLDED[bytes:sub(at, at + size - 1)] or OTHER
    at = size and at + size or bytes:match("^.[\128-\191]*()", at)
  end
  return table.concat(parts)
end

local function fold(text)
  return (text:gsub("%z", "\1"):gsub("[\128-\255]+", fold_run))
end

local function fold_code(code)
  if code < 128 then return string.char(math.max(code, 1)) end
  return SPACE_CODES[code] and SPACE or OTHER
end

local function trim(text)
  local start = text:find("[^" .. SPACES .. "]")
  return start and text:match("^.*[^" .. SPACES .. "]", start) or ""
end

-- What a user wrote, safe to print in a terminal.
local function shown(text)
  local safe = text:sub(1, LIMIT):gsub("[^\32-\126]", "?")
  return #text > LIMIT and safe .. "..." or safe
end

-- --- a value: what it means, as text that is the same for what means the same; nil where it means nothing

local KEYWORDS = {baseline = true, default = true, min = true, max = true}
local UNITS = {[""] = 1e-3, w = 1e-3, kw = 1}

local function number_and_unit(text)
  local whole, rest = text:match("^([0-9]+)(.*)$")
  if not whole then return nil end
  local part, after = rest:match("^%.([0-9]+)(.*)$")
  local unit = (after or rest):match("^[\9-\13\32]?(.*)$"):lower()
  return whole, part or "", unit
end

-- Whole units of 10^-places, exact: what people write has fewer digits than a double.
local function scaled(whole, part, places)
  return tonumber(whole) * 10 ^ places + tonumber((part .. string.rep("0", places)):sub(1, places))
end

local function meaning_of_amount(text)
  if KEYWORDS[text:lower()] then return text:lower() end
  local whole, part, unit = number_and_unit(text)
  if not whole then return nil end
  if unit == "%" then
    local points = scaled(whole, part, 2)
    return #whole <= 4 and #part <= 2 and points > 0 and ("%.0f points"):format(points) or nil
  end
  if not UNITS[unit] or #whole > 9 or #part > 6 then return nil end
  local milliwatts = scaled(whole, part, 6)
  if unit ~= "kw" then milliwatts = math.floor(milliwatts / 1000) end
  return milliwatts >= 1 and ("%.0f mW"):format(milliwatts) or nil
end

local function has(names, name)
  for _, known in ipairs(names) do
    if known == name then return true end
  end
  return false
end

-- What a folded value means, or nil and what is wrong with it.
local function meaning_of(value)
  if trim(value) == "" then return nil, "nothing follows it; " .. GRAMMAR end
  if #value <= LIMIT then
    local amount = meaning_of_amount(trim(value))
    if amount then return amount end
    if value:find("^[A-Za-z_][A-Za-z0-9_.-]*$") then
      if wattkeeper.profiles and not has(wattkeeper.profiles, value) then
        return nil, "no such profile; there are: " .. table.concat(wattkeeper.profiles, ", ")
      end
      return "profile " .. value
    end
  end
  return nil, "not a power limit; " .. GRAMMAR
end

-- --- JSON: the key `power` of an object, as strict as Python's json

local ESCAPES = {['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\8", f = "\12", n = "\n", r = "\r", t = "\t"}
local LITERALS = {
  null = false, ["true"] = "(true)", ["false"] = "(false)", NaN = "NaN", Infinity = "Infinity",
  ["-Infinity"] = "-Infinity",
}

-- The text of a string whose first character is at `at`, and where it ends; nil where it is none.
local function read_string(text, at)
  local parts = {}
  while true do
    local plain, stop = text:match('^([^"\\\1-\31]*)()', at)
    parts[#parts + 1] = plain
    local hex = text:match("^\\u(%x%x%x%x)", stop)
    local escaped = ESCAPES[text:match("^\\(.)", stop) or ""]
    if text:sub(stop, stop) == '"' then
      return table.concat(parts), stop + 1
    elseif hex then
      parts[#parts + 1] = fold_code(tonumber(hex, 16))
      at = stop + 6
    elseif escaped then
      parts[#parts + 1] = escaped
      at = stop + 2
    else
      return nil
    end
  end
end

-- A number as it is written, a literal, or false for null; and where it ends. nil where there is none.
local function read_scalar(text, at)
  local stop = text:match("^%-?[1-9][0-9]*()", at) or text:match("^%-?0()", at)
  if stop then
    stop = text:match("^%.[0-9]+()", stop) or stop
    stop = text:match("^[eE][-+]?[0-9]+()", stop) or stop
    return text:sub(at, stop - 1), stop
  end
  for literal, value in pairs(LITERALS) do
    if text:sub(at, at + #literal - 1) == literal then return value, at + #literal end
  end
  return nil
end

-- The values of the object's key `power`, in order; none where the text is no JSON object. No recursion: a comment may
-- open as many brackets as it has characters.
local function json_values(text)
  if not text:find("^{.*}$") then return {} end
  local found, open, at, is_power = {}, {"}"}, 2, false
  local want, first = "key", true
  local function note(value)
    if is_power and #open == 1 and value then found[#found + 1] = value end
  end
  while #open > 0 do
    at = text:match("^[ \t\n\r]*()", at)
    local char, closer = text:sub(at, at), open[#open]
    if char == closer and (want == "comma" or first) then
      open[#open], want, first, at = nil, "comma", false, at + 1
    elseif want == "comma" then
      if char ~= "," then return {} end
      want, at = closer == "}" and "key" or "value", at + 1
    elseif want == "key" then
      local key, stop = read_string(text, char == '"' and at + 1 or #text + 1)
      at = key and text:match("^[ \t\n\r]*:()", stop)
      if not at then return {} end
      if #open == 1 then is_power = key:lower() == "power" end
      want, first = "value", false
    elseif char == "{" or char == "[" then
      note(char == "{" and "(an object)" or "(a list)")
      open[#open + 1] = char == "{" and "}" or "]"
      want, first, at = char == "{" and "key" or "value", true, at + 1
    else
      local value, stop
      if char == '"' then value, stop = read_string(text, at + 1) else value, stop = read_scalar(text, at) end
      if value == nil then return {} end
      note(value)
      want, first, at = "comma", false, stop
    end
  end
  return at > #text and found or {}
end

-- --- a comment

-- Every value behind `power=`; where a unit strayed from its number behind a space, the second is true.
local function tokens(text)
  local found, at = {}, 1
  while true do
    local start, stop = text:find("[Pp][Oo][Ww][Ee][Rr]=", at)
    if not start then return found end
    at = start + 1
    if start == 1 or text:find("^[" .. BREAKS .. "]", start - 1) then
      local value
      value, at = text:match("^([^" .. BREAKS .. "]*)()", stop + 1)
      local word = value:find("[0-9]$") and text:match("^[" .. SPACES .. "]+([^" .. BREAKS .. "]+)", at) or ""
      word = word:lower():gsub(KELVIN, "k")
      found[#found + 1] = {value, word == "%" or word == "kw" or word == "mw"}
    end
  end
end

-- "none", "asked" or "malformed"; for the last, what was asked (safe to print) and what is wrong with it.
function wattkeeper.verdict(comment)
  local text = fold(comment or "")
  local values = tokens(text)
  for _, value in ipairs(json_values(trim(text))) do values[#values + 1] = {value, false} end
  local asked
  local two = false
  for _, value in ipairs(values) do
    if value[2] then return "malformed", shown(value[1]), "a space stands between the number and its unit" end
    local meaning, problem = meaning_of(value[1])
    if not meaning then return "malformed", shown(value[1]), problem end
    two = two or (asked ~= nil and asked ~= meaning)
    asked = meaning
  end
  if two then return "malformed", shown(values[1][1]), "the comment asks for two different things" end
  return asked and "asked" or "none"
end

-- The same for what was given to --gpu-power, which is a value and nothing else.
function wattkeeper.option_verdict(value)
  local meaning, problem = meaning_of(fold(value))
  if meaning then return "asked" end
  return "malformed", shown(fold(value)), problem
end

-- --- what Slurm asks

local OPTION = "WATTKEEPER_GPU_POWER=" -- set by the SPANK plugin

local function submit(job_desc)
  local environment = job_desc.spank_job_env
  for _, variable in pairs(type(environment) == "table" and environment or {}) do
    if type(variable) == "string" and variable:sub(1, #OPTION) == OPTION then
      local verdict, asked, problem = wattkeeper.option_verdict(variable:sub(#OPTION + 1))
      if verdict == "malformed" then
        slurm.log_user("%s", ("wattkeeper: --gpu-power=%s: %s"):format(asked, problem))
        return false
      end
    end
  end
  local verdict, asked, problem = wattkeeper.verdict(job_desc.comment)
  if verdict ~= "malformed" then return true end
  slurm.log_user("%s", ("wattkeeper: power=%s in the comment: %s"):format(asked, problem))
  return false
end

local RUNNING, SUSPENDED = 1, 2

local function modify(job_desc, job_rec, uid)
  if job_desc.comment == nil or job_desc.comment == (job_rec.comment or "") then return true end
  local state = (job_rec.job_state or 0) % 256 -- the rest are flags
  if wattkeeper.freeze_comments and (state == RUNNING or state == SUSPENDED) and not wattkeeper.admins[uid] then
    slurm.log_user("%s", "wattkeeper: a job's comment is fixed once it runs: the power it asks for was read at its start")
    return false
  end
  return submit({comment = job_desc.comment})
end

-- Trouble of our own must cost nobody a job.
local function careful(asked, ...)
  local ok, answer = pcall(asked, ...)
  if ok then return answer end
  pcall(slurm.log_error, "%s", "wattkeeper: not checked, this is a bug: " .. tostring(answer))
  return true
end

-- For slurm_job_submit: false where the job must not be taken. Its owner has then been told why.
function wattkeeper.may_submit(job_desc)
  return careful(submit, job_desc)
end

-- For slurm_job_modify, likewise. Slurm 22.05 shows a message here to nobody and writes it into slurmctld's log.
function wattkeeper.may_modify(job_desc, job_rec, uid)
  return careful(modify, job_desc, job_rec, uid)
end

return wattkeeper
