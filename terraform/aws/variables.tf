variable "name" {
  description = "The function's name; its roles, log group, checks and alarms are named after it. Two deployments in one region differ in it."
  type        = string
  default     = "grpc-health"

  validation {
    # A role's name has 64 characters at most, the region and "-function" included.
    condition     = can(regex("^[A-Za-z0-9_-]{1,40}$", var.name))
    error_message = "name: write up to 40 letters, digits, hyphens and underscores."
  }
}

variable "package" {
  description = "The zip file that `go run ./lambda/zip` makes."
  type        = string

  validation {
    condition     = fileexists(var.package)
    error_message = "package: there is no such file: make it with go run ./lambda/zip -arch ${var.architecture} -o FILE."
  }
}

variable "architecture" {
  description = "The architecture that the package was made for: arm64 or amd64."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "amd64"], var.architecture)
    error_message = "architecture: write arm64 or amd64, as for go run ./lambda/zip -arch."
  }
}

variable "grpc_addr" {
  description = "The upstream to check, host:port. For many there is targets."
  type        = string
  default     = null

  validation {
    condition     = can(regex("^(dns://[^/]*/|passthrough:///)?(\\[[^\\]]+\\]|[^][:/\\s]+):[0-9]{1,5}$", coalesce(var.grpc_addr, "grpc.example.com:443")))
    error_message = "grpc_addr: write the upstream with its port, such as grpc.example.com:443 or [2001:db8::1]:443."
  }
}

variable "targets" {
  description = "Many upstreams instead of one, by their names: an object for each, with the keys of the targets file (docs/targets.md), such as { addr = \"checkout.internal:443\", group = \"payments\" }. A secret is written as its ARN, and in a header behind an @."
  type        = any
  default     = {}
}

variable "target_defaults" {
  description = "What holds for each of targets that does not say otherwise, by the same keys, such as { tls = true }."
  type        = any
  default     = {}

  validation {
    condition     = length(var.targets) > 0 || length(var.target_defaults) == 0
    error_message = "target_defaults: there are no targets: write targets, or the settings of one upstream into settings."
  }
}

variable "targets_in" {
  description = "Where the function has the targets file: in a secret of Secrets Manager (secret, up to 64 KiB), or in a layer of the function (layer), for larger files, without cost and without a way to Secrets Manager. Headers and keys belong into secrets that the file names."
  type        = string
  default     = "secret"

  validation {
    condition     = contains(["secret", "layer"], var.targets_in)
    error_message = "targets_in: write secret or layer."
  }
}

variable "checks" {
  description = "Who rings where there are targets: the alarms of each target, one for each group, or one for all of them (all, up to 100); and what a health check of Route 53 is about. null is each target where there are 50 or fewer, and else each group. A target without a group rings by itself."
  type        = string
  default     = null

  validation {
    condition     = var.checks == null || length(var.targets) > 0
    error_message = "checks: with one upstream each service has an alarm: leave it out, or write targets."
  }
}

variable "services" {
  description = "The services to check; none is the whole server. Only these may be asked for."
  type        = set(string)
  default     = []

  validation {
    # Also what a dimension of a metric takes, so that the alarms find it.
    condition     = alltrue([for service in var.services : can(regex("^[!-+\\x2d-~]{1,255}$", service))])
    error_message = "services: write each service's name by itself, up to 255 printable ASCII characters, without commas and spaces."
  }

  validation {
    condition     = length(var.services) <= 100
    error_message = "services: name 100 or fewer."
  }
}

variable "connect_timeout" {
  description = "The budget for a connection, in seconds: lookup, TCP, TLS, and the server's HTTP/2 SETTINGS; and the first fetch of a secret."
  type        = number
  default     = 0.5

  validation {
    condition     = var.connect_timeout > 0
    error_message = "connect_timeout: write seconds above 0, such as 0.5."
  }
}

variable "rpc_timeout" {
  description = "The budget for the RPC, in seconds."
  type        = number
  default     = 0.8

  validation {
    condition     = var.rpc_timeout > 0
    error_message = "rpc_timeout: write seconds above 0, such as 0.8."
  }
}

variable "settings" {
  description = "Further settings, by the full names of their environment variables, such as GRPC_HEALTH_TLS: the README of the project lists them. Where a value is null or empty, the program's default holds."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.settings) : startswith(name, "GRPC_HEALTH_")])
    error_message = "settings: every name begins with GRPC_HEALTH_: write ${join(", ", [for name in keys(var.settings) : "GRPC_HEALTH_${trimprefix(name, "GRPC_")} instead of ${name}" if !startswith(name, "GRPC_HEALTH_")])}."
  }

  validation {
    condition     = length(setintersection(keys(var.settings), keys(local.variable_for))) == 0
    error_message = "settings: other variables of this module set these: write ${join(", ", [for name in keys(var.settings) : "${local.variable_for[name]} instead of ${name}" if contains(keys(local.variable_for), name)])}."
  }

  validation {
    condition     = length(setsubtract([for name in keys(var.settings) : name if startswith(name, "GRPC_HEALTH_")], local.known_settings)) == 0
    error_message = "settings: ${join(", ", setsubtract([for name in keys(var.settings) : name if startswith(name, "GRPC_HEALTH_")], local.known_settings))} cannot be set here: the program has no such setting, or this deployment has no use for it. These can be set: ${join(", ", local.other_settings)}."
  }

  validation {
    condition     = length(var.targets) == 0 || length(setintersection(keys(var.settings), local.upstream_settings)) == 0
    error_message = "settings: are the whole function's where there are targets: write ${join(", ", [for name in setintersection(keys(var.settings), local.upstream_settings) : "${lower(trimprefix(name, "GRPC_HEALTH_"))} in targets or target_defaults instead of ${name}"])}."
  }

  validation {
    condition = length(var.targets) > 0 || contains(["1", "t", "true"], lower(trimspace(coalesce(lookup(var.settings, "GRPC_HEALTH_TLS", null), "false")))) || (
      length(setintersection(keys(var.secrets), ["GRPC_HEALTH_CA_CERT", "GRPC_HEALTH_CLIENT_CERT", "GRPC_HEALTH_CLIENT_KEY"])) == 0 &&
      length(setintersection([for name, value in var.settings : name if value != null && value != ""], ["GRPC_HEALTH_SNI_SERVER_NAME", "GRPC_HEALTH_TLS_NO_VERIFY"])) == 0
    )
    error_message = "settings: certificates and a server name mean nothing without TLS: write GRPC_HEALTH_TLS = true as well."
  }
}

variable "secrets" {
  description = "Secrets of Secrets Manager, by the setting that reads them (GRPC_HEALTH_CA_CERT, GRPC_HEALTH_CLIENT_CERT, GRPC_HEALTH_CLIENT_KEY, GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE): the whole ARN, and #KEY behind it for one key of a JSON secret."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.secrets) : contains(local.file_settings, name)])
    error_message = "secrets: ${join(", ", setsubtract(keys(var.secrets), local.file_settings))} reads no file. Those that do are ${join(", ", local.file_settings)}; secrets to send as metadata are secret_headers."
  }

  validation {
    condition     = length(var.targets) == 0 || length(setsubtract(keys(var.secrets), ["GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE"])) == 0
    error_message = "secrets: are the whole function's where there are targets: write ${join(", ", [for name in setsubtract(keys(var.secrets), ["GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE"]) : "${lower(trimprefix(name, "GRPC_HEALTH_"))} in targets or target_defaults instead of ${name}"])}, with the secret's ARN."
  }

  validation {
    condition     = contains(keys(var.secrets), "GRPC_HEALTH_CLIENT_CERT") == contains(keys(var.secrets), "GRPC_HEALTH_CLIENT_KEY")
    error_message = "secrets: a client certificate and its key mean nothing without each other: write GRPC_HEALTH_CLIENT_CERT and GRPC_HEALTH_CLIENT_KEY, or neither."
  }

  validation {
    # The role may read these ARNs, so they have to be whole.
    condition = alltrue([for arn in concat(values(var.secrets), values(var.secret_headers)) :
      can(regex("^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+-[A-Za-z0-9]{6}(#.+)?$", arn))
    ])
    error_message = "secrets, secret_headers: write a secret's whole ARN, arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME-xxxxxx (#KEY for one key of it), and not its content."
  }
}

variable "secret_headers" {
  description = "Metadata to send, whose values are secrets: the secret's ARN, by the header's name. All metadata is written here, none in settings: a value there would be in the state and the plan, and often is a secret."
  type        = map(string)
  default     = {}

  validation {
    # https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, Custom-Metadata
    condition     = alltrue([for name in keys(var.secret_headers) : can(regex("^[0-9a-z_.-]+$", name)) && !startswith(name, "grpc-")])
    error_message = "secret_headers: write names with lower-case letters, digits, -, _ and . that do not begin with grpc-, such as x-api-key."
  }
}

variable "secret_kms_keys" {
  description = "The ARNs of the KMS keys of secrets that have keys of their own."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.secret_kms_keys : can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", arn))])
    error_message = "secret_kms_keys: write the keys' ARNs, arn:aws:kms:REGION:ACCOUNT:key/ID; an alias gives no permission."
  }
}

variable "vpc" {
  description = "The VPC of the upstream, for one that has no public address. Secrets then need an interface endpoint of Secrets Manager, or NAT."
  type = object({
    subnet_ids         = set(string)
    security_group_ids = set(string)
  })
  default = null

  validation {
    condition     = try(length(var.vpc.subnet_ids) > 0 && length(var.vpc.security_group_ids) > 0, var.vpc == null)
    error_message = "vpc: write at least one subnet and one security group."
  }
}

variable "concurrency_limit" {
  description = "The most invocations at once, which are reserved for this function. By default 10 where function_url is public, and else no limit; -1 is no limit for a public one either, for accounts whose own limit leaves none to reserve."
  type        = number
  default     = null

  validation {
    condition     = coalesce(var.concurrency_limit, 1) >= 1 || coalesce(var.concurrency_limit, 1) == -1
    error_message = "concurrency_limit: write 1 or more, or -1 for no limit; 0 would stop the function."
  }
}

variable "log_retention_days" {
  description = "How long the log is kept, in days."
  type        = number
  default     = 30

  validation {
    # https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days: write a time that CloudWatch Logs offers, such as 7, 14, 30, 90 or 365."
  }
}

variable "schedule_minutes" {
  description = "How often the function is invoked, in minutes, with an alarm where a verdict is not SERVING or missing; null has neither."
  type        = number
  default     = 1

  validation {
    condition     = contains([for minutes in range(1, 61) : minutes], coalesce(var.schedule_minutes, 1))
    error_message = "schedule_minutes: write whole minutes, 1 to 60."
  }
}

variable "function_url" {
  description = "An HTTPS URL for the function: NONE is public, AWS_IAM is for callers in this account whose own policies allow it; null has none."
  type        = string
  default     = null

  validation {
    condition     = contains(["NONE", "AWS_IAM"], coalesce(var.function_url, "NONE"))
    error_message = "function_url: write NONE (public) or AWS_IAM, or leave it out."
  }

  validation {
    condition     = try(var.function_url != "NONE", true) || length(local.unnamed) == 0
    error_message = "function_url: with a public URL strangers could ask for any service: ${length(var.targets) == 0 ? "name the services" : "write service_name for ${join(", ", local.unnamed)}"}."
  }
}

variable "route53" {
  description = "Health checks of Route 53, one for each service (with targets: as checks says), from these regions (by default all), at an interval of 10 or 30 seconds (30). They ask a public function URL."
  type = object({
    regions  = optional(set(string), [])
    interval = optional(number, 30)
  })
  default = null

  validation {
    condition     = var.route53 == null || try(var.function_url == "NONE", false)
    error_message = "route53: its checkers cannot sign requests, and need a URL: write function_url = \"NONE\", or leave route53 out for the private schedule."
  }

  validation {
    condition     = var.route53 == null || !contains(keys(var.secrets), "GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE")
    error_message = "route53: its checkers cannot send headers, so no token: leave GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE out, or route53 out for the private schedule."
  }

  validation {
    # The status has to come within 2 s of connecting, a cold start included:
    # https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/dns-failover-determining-health-of-endpoints.html
    condition     = var.route53 == null || local.budget <= 1.5
    error_message = "route53: its checkers wait 2 seconds, a cold start included: write connect_timeout and rpc_timeout of 1.5 or less together (they are ${local.budget})."
  }

  validation {
    # https://docs.aws.amazon.com/Route53/latest/APIReference/API_HealthCheckConfig.html
    condition     = contains([10, 30], try(var.route53.interval, 30))
    error_message = "route53: write an interval that Route 53 offers: 10 or 30 seconds."
  }

  validation {
    condition = alltrue([for region in try(var.route53.regions, []) :
      contains(["us-east-1", "us-west-1", "us-west-2", "eu-west-1", "ap-southeast-1", "ap-southeast-2", "ap-northeast-1", "sa-east-1"], region)
    ])
    error_message = "route53: write regions that have health checkers: us-east-1, us-west-1, us-west-2, eu-west-1, ap-southeast-1, ap-southeast-2, ap-northeast-1, sa-east-1."
  }

  validation {
    condition     = !contains([1, 2], try(length(var.route53.regions), 0))
    error_message = "route53: fewer than three regions: write three or more, or none for all."
  }

  validation {
    condition     = var.route53 == null || alltrue([for path in values(local.queries) : length(path) <= 255])
    error_message = "route53: a path has 255 characters at most: shorten the names."
  }
}

variable "certificate_days" {
  description = "An alarm rings where a certificate ends in less than so many days; null has none. Certificates that are renewed automatically need less than what is left at their renewal."
  type        = number
  default     = 14

  validation {
    condition     = coalesce(var.certificate_days, 1) >= 1 && coalesce(var.certificate_days, 1) <= 365
    error_message = "certificate_days: write 1 to 365 days, or null for no alarm."
  }
}

variable "alert_emails" {
  description = "Addresses that alarms go to; each confirms once."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for address in var.alert_emails : can(regex("^[^@\\s]+@[^@\\s]+$", address))])
    error_message = "alert_emails: write e-mail addresses; others can subscribe to the topics of the output alarm_topics."
  }
}
