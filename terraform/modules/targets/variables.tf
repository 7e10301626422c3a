# The modules that use this one have variables of these names: the outputs say what is wrong with the values.

variable "targets" {
  description = "The upstreams, by name: their settings, by the keys of the targets file."
  type        = any # the values of one key differ in type from those of another
  nullable    = false

  validation {
    condition     = can(keys(var.targets)) && alltrue([for target in try(values(var.targets), []) : can(keys(target))])
    error_message = "targets: write an object for each upstream, by its name: targets = { checkout = { addr = \"checkout.internal:443\" } }."
  }
}

variable "defaults" {
  description = "What holds for each target that does not say otherwise, by the same keys."
  type        = any
  nullable    = false

  validation {
    condition     = can(keys(var.defaults))
    error_message = "target_defaults: write an object, such as target_defaults = { tls = true }."
  }
}

variable "timeouts" {
  description = "The defaults of connect_timeout and rpc_timeout, in seconds."
  type        = map(number)
}

variable "checks" {
  description = "What a check is about: target, group or all; null is target for up to 50 targets, and group for more."
  type        = string

  validation {
    condition     = contains(["target", "group", "all"], coalesce(var.checks, "target"))
    error_message = "checks: write target, group or all; null is each target where there are 50 or fewer, and else each group."
  }
}

variable "most_checks" {
  description = "How many checks there may be, and why."
  type = object({
    number = number
    reason = string
  })
}

variable "most_bytes" {
  description = "How large the file may be, in bytes, and what to do where it is larger."
  type = object({
    number = number
    advice = string
  })
}
