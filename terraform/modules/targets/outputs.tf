output "content" {
  description = "The targets file."
  value       = local.content
  sensitive   = true # headers may be

  precondition {
    condition     = length(local.bad_names) == 0
    error_message = "targets: not a name of a target: ${jsonencode(local.bad_names)}: write 1 to 63 letters, digits, dots, underscores and hyphens, the first a letter or digit."
  }
  precondition {
    condition     = length(local.bad_groups) == 0
    error_message = "${join(", ", local.bad_groups)}: not a name of a group: write 1 to 63 letters, digits, dots, underscores and hyphens, the first a letter or digit."
  }
  precondition {
    condition     = length(local.bad_keys) == 0
    error_message = "${join("; ", local.bad_keys)}. The keys are ${join(", ", local.keys)}. Settings of the whole deployment, such as GRPC_HEALTH_LOG_LEVEL, belong into settings."
  }
  precondition {
    condition     = length(local.no_addr) == 0
    error_message = "targets: no addr: ${join(", ", local.no_addr)}: write addr = \"host:port\", or put it into target_defaults where all have the same."
  }
  precondition {
    condition     = length(local.bad_times) == 0
    error_message = "${join(", ", local.bad_times)}: a time is text with a unit: write \"500ms\" or \"2s\"."
  }
  precondition {
    condition     = local.budget <= 60
    error_message = "targets: connect_timeout and rpc_timeout of a target are a minute together at most: write less."
  }
  precondition {
    condition     = length(setintersection(keys(local.defaults), keys(var.timeouts))) == 0
    error_message = "target_defaults: the variables connect_timeout and rpc_timeout of this module, in seconds, are the defaults: leave ${join(", ", setintersection(keys(local.defaults), keys(var.timeouts)))} out here. A target may have its own."
  }
  precondition {
    # Also what a dimension of a metric takes, so that alarms find it.
    condition     = length(local.bad_services) == 0
    error_message = "targets: service_name of ${join(", ", local.bad_services)}: write each service's name by itself, up to 255 printable ASCII characters, without commas and spaces."
  }
  precondition {
    condition     = length(local.large) == 0
    error_message = "targets: a group is asked for as one, so it has 100 targets at most: divide ${join(", ", local.large)}."
  }
  precondition {
    condition     = local.size <= var.most_bytes.number
    error_message = "targets: the file is larger than ${var.most_bytes.number} bytes: ${var.most_bytes.advice}."
  }
}

output "checks" {
  description = "What to check, by name: the query that asks for it, and the targets that it is about."
  value       = local.checks

  precondition {
    condition     = local.about != "all" || length(local.targets) <= 100
    error_message = "checks: one answer is about 100 targets at most, and there are ${length(local.targets)}: write checks = \"group\", and a group in each target."
  }
  precondition {
    condition     = length(local.checks) <= var.most_checks.number
    error_message = "checks: ${length(local.checks)} are more than ${var.most_checks.number}, ${var.most_checks.reason}: write checks = \"group\", and a group in each target."
  }
}

output "invocations" {
  description = "The events of Lambda that together check everything, each within one invocation."
  value       = local.invocations
}

output "names" {
  description = "The targets."
  value       = keys(local.targets)
}

output "services" {
  description = "The services of each target; none is the whole server."
  value       = local.services
}

output "addresses" {
  description = "The address of each target."
  value       = { for name, target in local.holds : name => target.addr }
}

output "tls" {
  description = "The targets that are asked with TLS."
  value       = local.tls
}

output "budget" {
  description = "How long a check takes at most, in seconds."
  value       = local.budget
}

output "sources" {
  description = "The files and secrets that the file names, each a path or an ARN."
  value       = local.sources
}

output "keys" {
  description = "The settings of an upstream, by their keys."
  value       = local.keys
}
