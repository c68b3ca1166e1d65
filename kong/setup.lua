-- Loads kong.yml through the Admin API, with what every Kong image has and nothing else:
--   resty setup.lua kong.yml
-- Each Service, Route and plugin is put under its name, so it can run again; what the file does not name stays as it is.
-- KONG_ADMIN_API is the Admin API to load it into, http://127.0.0.1:8001 by default; KONG_ADMIN_TOKEN is sent if it is set.
-- ADMIN_API_URL replaces the url of the file's Service.
setmetatable(_G, nil) -- resty warns of each global variable, and two of these libraries set one

local cjson = require "cjson.safe"
local http = require "socket.http"
local ltn12 = require "ltn12"
local lyaml = require "lyaml"

local admin_api = (os.getenv("KONG_ADMIN_API") or "http://127.0.0.1:8001"):gsub("/+$", "")
local admin_token = os.getenv("KONG_ADMIN_TOKEN")
local service_url = os.getenv("ADMIN_API_URL")

local function fail(message)
  io.stderr:write("setup: ", message, "\n")
  os.exit(1)
end

-- put creates or replaces the entity at path. Kong's answer can hold a configuration, and is printed only if it is an error.
local function put(path, entity)
  local body = assert(cjson.encode(entity))
  local answer = {}
  local ok, status = http.request {
    method = "PUT",
    url = admin_api .. path,
    headers = {
      ["Content-Type"] = "application/json",
      ["Content-Length"] = #body,
      ["Kong-Admin-Token"] = admin_token,
    },
    source = ltn12.source.string(body),
    sink = ltn12.sink.table(answer),
  }
  if not ok then
    fail("PUT " .. admin_api .. path .. ": " .. tostring(status))
  end
  if status ~= 200 and status ~= 201 then
    fail("PUT " .. admin_api .. path .. ": " .. status .. " " .. table.concat(answer))
  end
  print("setup: put " .. path)
end

-- take removes a list from an entity, which the Admin API does not take as a part of it, and returns the list.
local function take(entity, list)
  local taken = entity[list] or {}
  entity[list] = nil
  return taken
end

local path = arg[1] or fail("usage: resty setup.lua kong.yml")
local file, reason = io.open(path)
if not file then
  fail(reason)
end
local config = lyaml.load(file:read("*a"))
file:close()

for _, service in ipairs(config.services or {}) do
  local routes, plugins = take(service, "routes"), take(service, "plugins")
  local at = "/services/" .. service.name
  service.url = service_url or service.url
  put(at, service)
  for _, route in ipairs(routes) do
    put(at .. "/routes/" .. route.name, route)
  end
  for _, plugin in ipairs(plugins) do
    put(at .. "/plugins/" .. plugin.instance_name, plugin)
  end
end
