# Makes the targets file, and says what there is to check, for the modules of both clouds. It has no resources.

locals {
  # The settings of an upstream, by their keys.
  keys = [
    "addr", "all_addresses", "alts", "alts_target_service_accounts", "authority", "ca_cert", "client_cert", "client_key",
    "conn_max_age", "connect_timeout", "group", "gzip", "id_token_audience", "min_healthy_addresses", "rpc_headers",
    "rpc_timeout", "service_name", "sni_server_name", "spiffe", "spiffe_server_id", "tls", "tls_no_verify", "use_proxy",
    "user_agent",
  ]
  times = ["conn_max_age", "connect_timeout", "rpc_timeout"]
  files = ["ca_cert", "client_cert", "client_key"]

  timeouts = { for key, seconds in var.timeouts : key => "${seconds}s" }
  # In the words of a message.
  places = merge({ target_defaults = local.defaults }, { for name, target in local.targets : "targets.${name}" => target })

  # Some settings as text; null is not set. What people read, and what resources are named after, is no secret. Where a value is known after
  # the plan only, such as an address, that must not make others unknown: so each is named by itself.
  defaults = nonsensitive(var.defaults)
  targets  = nonsensitive(var.targets)
  text = { for name, place in local.places : name => {
    addr            = try(nonsensitive(tostring(place.addr)), null)
    group           = try(nonsensitive(tostring(place.group)), null)
    service_name    = try(nonsensitive(tostring(place.service_name)), nonsensitive(join(",", place.service_name)), null)
    tls             = try(nonsensitive(tostring(place.tls)), null)
    alts            = try(nonsensitive(tostring(place.alts)), null)
    conn_max_age    = try(nonsensitive(tostring(place.conn_max_age)), null)
    connect_timeout = try(nonsensitive(tostring(place.connect_timeout)), null)
    rpc_timeout     = try(nonsensitive(tostring(place.rpc_timeout)), null)
  } }
  # What holds for a target. Empty text unsets a default.
  holds = { for name in keys(local.targets) : name => { for key, own in local.text["targets.${name}"] :
    key => trimspace(own != null ? own : local.text.target_defaults[key] != null ? local.text.target_defaults[key] : lookup(local.timeouts, key, ""))
  } }

  services = { for name, target in local.holds : name => distinct([for service in split(",", target.service_name) : trimspace(service) if trimspace(service) != ""]) }
  groups   = { for name, target in local.holds : target.group => name... if target.group != "" }
  # ALTS of a target's own drops the default.
  true = ["1", "t", "true"]
  tls = [for name, target in local.holds : name
    if contains(local.true, lower(target.tls)) && (local.text["targets.${name}"].tls != null || !contains(local.true, lower(target.alts)))
  ]

  # The longest check. A time is a number and a unit, once or more; without any the program's default holds.
  unit = { ns = 1e-9, us = 1e-6, "µs" = 1e-6, ms = 0.001, s = 1, m = 60, h = 3600 }
  time = "([0-9]+\\.?[0-9]*|\\.[0-9]+)(ns|us|µs|ms|s|m|h)"
  budget = max(0, [for target in values(local.holds) : sum([for key in ["connect_timeout", "rpc_timeout"] :
    sum(concat([target[key] == "" ? 1 : 0], [for part in regexall(local.time, target[key]) : tonumber(part[0]) * local.unit[part[1]]]))
  ])]...)

  # The file. What is null is not set.
  written = { for name, place in local.places : name => merge(
    { for key, value in place : key => value if value != null },
    { for key in ["rpc_headers"] : key => { for header, value in place.rpc_headers : header => value if value != null } if can(keys(place.rpc_headers)) },
  ) }
  content = sensitive(yamlencode({
    defaults = merge(local.timeouts, local.written.target_defaults)
    targets  = { for name in keys(local.targets) : name => local.written["targets.${name}"] }
  }))
  # Terraform shows the values that a failed condition refers to.
  size = nonsensitive(length(local.content))

  # The files and secrets that it names; a header has an @ in front.
  sources = distinct(flatten([for place in values(local.places) : concat(
    [for key in local.files : try(nonsensitive(regex("^\\s*((?:/|arn:)[^\\s]+)\\s*$", place[key])[0]), [])],
    [for header, value in try(merge(place.rpc_headers), {}) : try(nonsensitive(regex("^\\s*@\\s*((?:/|arn:)[^\\s]+)\\s*$", value)[0]), [])],
    [for line in try(tolist(place.rpc_headers), []) : try(nonsensitive(regex(":\\s*@\\s*((?:/|arn:)[^\\s]+)\\s*$", line)[0]), [])],
  )]))

  # What there is to check: each by a name that is no other's, how to ask for it, and whom it is about.
  about  = coalesce(var.checks, length(local.targets) <= 50 ? "target" : "group")
  single = { for name in keys(local.targets) : name => { query = "target=${name}", event = { target = name }, targets = [name] } }
  grouped = merge(
    { for group, names in local.groups : "${group} (group)" => { query = "group=${group}", event = { group = group }, targets = names } },
    { for name, check in local.single : name => check if local.holds[name].group == "" },
  )
  whole  = length(local.targets) == 0 ? {} : { "(all)" = { query = "", event = {}, targets = keys(local.targets) } }
  checks = { target = local.single, group = local.grouped, all = local.whole }[local.about]

  # As few invocations as check everything: one answers for 100 targets.
  invocations = length(local.targets) <= 100 ? [{}] : [for name in sort(keys(local.grouped)) : local.grouped[name].event]

  # Problems, as sentences.
  legal_name = "^[0-9A-Za-z][0-9A-Za-z._-]{0,62}$"
  bad_names  = [for name in keys(local.targets) : name if !can(regex(local.legal_name, name))]
  bad_groups = [for name, place in local.text : name if place.group != null && !can(regex(local.legal_name, trimspace(place.group))) && trimspace(coalesce(place.group, " ")) != ""]
  bad_keys = flatten([for name, place in local.places : [for key in keys(place) :
    "${name}: ${join("", [for meant in [lower(replace(replace(key, "/^(?i)GRPC_HEALTH_/", ""), "-", "_"))] :
      contains(local.keys, meant) ? "write ${meant} instead of ${key}" :
      contains(["service", "services", "service_names"], meant) ? "write service_name instead of ${key}" :
      contains(["target", "address", "grpc_addr", "host"], meant) ? "write addr instead of ${key}" :
      contains(["headers", "metadata", "secret_headers"], meant) ? "write rpc_headers instead of ${key}" :
      contains(["ca", "ca_file", "cacert"], meant) ? "write ca_cert instead of ${key}" : "no such key: ${key}"
    ])}"
    if !contains(local.keys, key)
  ]])
  bad_times = flatten([for name, place in local.text : [for key in local.times : "${name}.${key}"
    if place[key] != null && !can(regex("^\\s*((${local.time})+|0)?\\s*$", place[key]))
  ]])
  no_addr      = [for name, target in local.holds : name if target.addr == ""]
  bad_services = distinct(flatten([for name, services in local.services : [for service in services : name if !can(regex("^[!-+\\x2d-~]{1,255}$", service))]]))
  large        = [for group, names in local.groups : group if length(names) > 100]
}
