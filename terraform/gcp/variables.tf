variable "project_id" {
  description = "The project to deploy to."
  type        = string
}

variable "region" {
  description = "The region to deploy to, such as europe-west1."
  type        = string
}

variable "image" {
  description = "The image of the project's Dockerfile to run on Cloud Run, in Artifact Registry, with a tag or a digest. null deploys the function from source instead."
  type        = string
  default     = null

  validation {
    condition     = var.image == null || can(regex("(:[A-Za-z0-9_][A-Za-z0-9_.-]*|@sha256:[0-9a-f]{64})$", var.image))
    error_message = "image: write a tag or a digest, such as europe-west1-docker.pkg.dev/project/repository/grpc-health-http:v1; or null for the function."
  }
}

variable "name" {
  description = "The deployment's name; its service account, checks and alerts are named after it. Two deployments in one project differ in it."
  type        = string
  default     = "grpc-health"

  validation {
    # What a service account may be called (https://cloud.google.com/iam/docs/service-accounts-create), and a bucket
    # with the project's ID in front (https://cloud.google.com/storage/docs/buckets#naming).
    condition     = can(regex("^[a-z][a-z0-9-]{4,22}[a-z0-9]$", var.name))
    error_message = "name: write 6 to 24 lower-case letters, digits and hyphens, a letter first and no hyphen last."
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
  description = "Many upstreams instead of one, by their names: an object for each, with the keys of the targets file (docs/targets.md), such as { addr = \"checkout.internal:443\", group = \"payments\" }. A file is written as the path of what secrets mounts, /secrets/NAME/value."
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

variable "checks" {
  description = "What an uptime check is about where there are targets: each target, each group, or all of them (all, up to 100). null is each target where there are 50 or fewer, and else each group. A target without a group has a check of its own."
  type        = string
  default     = null

  validation {
    condition     = var.checks == null || length(var.targets) > 0
    error_message = "checks: with one upstream each service has a check: leave it out, or write targets."
  }
}

variable "services" {
  description = "The services to check, each with an uptime check of its own; none is the whole server. Only these may be asked for."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for service in var.services : can(regex("^[!-+\\x2d-~]{1,255}$", service))])
    error_message = "services: write each service's name by itself, up to 255 printable ASCII characters, without commas and spaces."
  }

  validation {
    # https://cloud.google.com/monitoring/uptime-checks#quotas_and_limits, and the program's own limit
    condition     = length(var.services) <= 100
    error_message = "services: name 100 or fewer; a project has no more uptime checks."
  }
}

variable "connect_timeout" {
  description = "The budget for a connection, in seconds: lookup, TCP, TLS, and the server's HTTP/2 SETTINGS."
  type        = number
  default     = 1

  validation {
    condition     = var.connect_timeout > 0
    error_message = "connect_timeout: write seconds above 0, such as 0.5."
  }
}

variable "rpc_timeout" {
  description = "The budget for the RPC, in seconds."
  type        = number
  default     = 1

  validation {
    condition     = var.rpc_timeout > 0
    error_message = "rpc_timeout: write seconds above 0, such as 0.5."
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
    error_message = "settings: are the whole deployment's where there are targets: write ${join(", ", [for name in setintersection(keys(var.settings), local.upstream_settings) : "${lower(trimprefix(name, "GRPC_HEALTH_"))} in targets or target_defaults instead of ${name}"])}."
  }

  validation {
    condition = length(var.targets) > 0 || contains(["1", "t", "true"], lower(trimspace(coalesce(lookup(var.settings, "GRPC_HEALTH_TLS", null), "false")))) || (
      var.id_token == null &&
      length(setintersection(keys(var.secrets), ["GRPC_HEALTH_CA_CERT", "GRPC_HEALTH_CLIENT_CERT", "GRPC_HEALTH_CLIENT_KEY"])) == 0 &&
      length(setintersection([for name, value in var.settings : name if value != null && value != ""], ["GRPC_HEALTH_SNI_SERVER_NAME", "GRPC_HEALTH_TLS_NO_VERIFY"])) == 0
    )
    error_message = "settings: certificates, a server name and an ID token mean nothing without TLS: write GRPC_HEALTH_TLS = true as well."
  }
}

variable "secrets" {
  description = "Secrets of Secret Manager, by the setting that reads them: GRPC_HEALTH_CA_CERT, GRPC_HEALTH_CLIENT_CERT, GRPC_HEALTH_CLIENT_KEY, GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE. With targets by any name of lower-case letters, digits and hyphens: each is then the file /secrets/NAME/value. A new version of the secret is used without a deployment where version is latest."
  type = map(object({
    secret  = string
    version = optional(string, "latest")
  }))
  default = {}

  validation {
    condition     = length(var.targets) > 0 || alltrue([for name in keys(var.secrets) : contains(local.file_settings, name)])
    error_message = "secrets: ${join(", ", setsubtract(keys(var.secrets), local.file_settings))} reads no file. Those that do are ${join(", ", local.file_settings)}; secrets to send as metadata are secret_headers."
  }

  validation {
    condition     = length(var.targets) == 0 || alltrue([for name in keys(var.secrets) : can(regex("^[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?$", name)) && name != "targets" || name == "GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE"])
    error_message = "secrets: with targets write a name for each, of up to 50 lower-case letters, digits and hyphens, such as backend-ca, and in targets ca_cert = \"/secrets/backend-ca/value\"; targets is taken."
  }

  validation {
    condition     = contains(keys(var.secrets), "GRPC_HEALTH_CLIENT_CERT") == contains(keys(var.secrets), "GRPC_HEALTH_CLIENT_KEY")
    error_message = "secrets: a client certificate and its key mean nothing without each other: write GRPC_HEALTH_CLIENT_CERT and GRPC_HEALTH_CLIENT_KEY, or neither."
  }

  validation {
    condition     = length(distinct([for s in concat(values(var.secrets), values(var.secret_headers)) : s.secret])) == length(var.secrets) + length(var.secret_headers)
    error_message = "secrets, secret_headers: a secret is mounted twice: give each a secret of its own, so that its versions are its own, too."
  }

  validation {
    condition     = alltrue([for s in concat(values(var.secrets), values(var.secret_headers)) : can(regex("^[A-Za-z0-9_-]{1,255}$", s.secret))])
    error_message = "secrets, secret_headers: write the secret's ID, such as upstream-ca, of a secret in the same project; not its resource name, and not its content."
  }

  validation {
    condition     = var.uptime_check == null || !contains(keys(var.secrets), "GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE")
    error_message = "secrets: the uptime check's OIDC token and GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE both need the header Authorization: leave the token out (IAM decides who may call), or write uptime_check = null."
  }
}

variable "secret_headers" {
  description = "Metadata to send, whose values are secrets, by the header's name. All metadata is written here, none in settings: a value there would be in the state and the plan, and often is a secret."
  type = map(object({
    secret  = string
    version = optional(string, "latest")
  }))
  default = {}

  validation {
    # What gRPC takes (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, Custom-Metadata) and a volume may be called.
    condition     = alltrue([for name in keys(var.secret_headers) : can(regex("^[0-9a-z-]{1,50}$", name)) && !startswith(name, "grpc-")])
    error_message = "secret_headers: write names of up to 50 lower-case letters, digits and hyphens that do not begin with grpc-, such as x-api-key."
  }
}

variable "id_token" {
  description = "Send a Google ID token for this audience, for an upstream that is a private Cloud Run service; the service (in the same region and project unless given) lets this deployment in."
  type = object({
    audience = string
    service  = string
    region   = optional(string)
    project  = optional(string)
  })
  default = null

  validation {
    condition     = startswith(coalesce(try(var.id_token.audience, null), "https://"), "https://")
    error_message = "id_token: write the audience as the service's URL, https:// first."
  }
}

variable "vpc" {
  description = "Direct VPC egress for an upstream in a VPC network: private addresses go through it, everything with all_traffic."
  type = object({
    network     = optional(string)
    subnetwork  = optional(string)
    tags        = optional(list(string), [])
    all_traffic = optional(bool, false)
  })
  default = null

  validation {
    condition     = var.vpc == null || try(coalesce(var.vpc.network, var.vpc.subnetwork), "") != ""
    error_message = "vpc: write a network, a subnetwork, or both."
  }
}

variable "invokers" {
  description = "Who may call besides the uptime check, as IAM members; \"allUsers\" makes it public."
  type        = set(string)
  default     = []

  validation {
    condition = alltrue([for member in var.invokers :
      can(regex("^(allUsers|allAuthenticatedUsers|(user|serviceAccount|group|domain|principal|principalSet):.+)$", member))
    ])
    error_message = "invokers: write IAM members, such as serviceAccount:name@project.iam.gserviceaccount.com or group:name@example.com."
  }
}

variable "uptime_check" {
  description = "How often to check (period, by default 60) and how long to wait (timeout, 10), in seconds, and from which regions (all). null makes no check, alerts or dashboard."
  type = object({
    period  = optional(number, 60)
    timeout = optional(number, 10)
    regions = optional(set(string), [])
  })
  default = {}

  validation {
    # https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.uptimeCheckConfigs
    condition     = contains([60, 300, 600, 900], try(var.uptime_check.period, 60))
    error_message = "uptime_check: write a period that Cloud Monitoring offers: 60, 300, 600 or 900 seconds."
  }

  validation {
    condition     = try(var.uptime_check.timeout >= 1 && var.uptime_check.timeout <= 60, var.uptime_check == null)
    error_message = "uptime_check: write a timeout of 1 to 60 seconds."
  }

  validation {
    condition     = var.uptime_check == null || try(var.uptime_check.timeout > local.budget, false)
    error_message = "uptime_check: the checker would give up before the answer: write a timeout above connect_timeout and rpc_timeout together (${local.budget} s), or shorten those."
  }

  validation {
    condition = alltrue([for region in try(var.uptime_check.regions, []) :
      contains(["USA", "USA_IOWA", "USA_OREGON", "USA_VIRGINIA", "EUROPE", "SOUTH_AMERICA", "ASIA_PACIFIC"], region)
    ])
    error_message = "uptime_check: write regions of Cloud Monitoring: USA, USA_IOWA, USA_OREGON, USA_VIRGINIA, EUROPE, SOUTH_AMERICA, ASIA_PACIFIC."
  }

  validation {
    # USA is three places: https://cloud.google.com/monitoring/api/ref_v3/rest/v3/UptimeCheckRegion
    condition     = try(length(var.uptime_check.regions) == 0 || length(var.uptime_check.regions) + (contains(var.uptime_check.regions, "USA") ? 2 : 0) >= 3, var.uptime_check == null)
    error_message = "uptime_check: fewer than three places: write USA (which is three), three other regions, or none for all."
  }
}

variable "schedule_minutes" {
  description = "How often Cloud Scheduler asks for everything, in minutes, with alerts on the log and on silence; null does not. It costs little where uptime checks of many targets cost much: then uptime_check = null."
  type        = number
  default     = null

  validation {
    condition     = contains([1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60], coalesce(var.schedule_minutes, 1))
    error_message = "schedule_minutes: write minutes that divide an hour: 1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30 or 60."
  }

  validation {
    condition     = var.schedule_minutes == null || !contains(keys(var.secrets), "GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE")
    error_message = "schedule_minutes: the schedule's OIDC token and GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE both need the header Authorization: leave the token out (IAM decides who may call), or leave schedule_minutes out."
  }
}

variable "certificate_days" {
  description = "An alert comes, with an uptime check, where a certificate ends in less than so many days; null has none. The program tells of certificates from 14 days on."
  type        = number
  default     = 14

  validation {
    condition     = coalesce(var.certificate_days, 1) >= 1 && coalesce(var.certificate_days, 1) <= 14
    error_message = "certificate_days: write 1 to 14 days, or null for no alert; the program's log tells of certificates from 14 days on."
  }
}

variable "alert_emails" {
  description = "Addresses that alerts go to."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for address in var.alert_emails : can(regex("^[^@\\s]+@[^@\\s]+$", address))])
    error_message = "alert_emails: write e-mail addresses; other channels are notification_channels."
  }
}

variable "notification_channels" {
  description = "Notification channels that exist already and that alerts go to, by resource name."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for channel in var.notification_channels : can(regex("^projects/[^/]+/notificationChannels/[^/]+$", channel))])
    error_message = "notification_channels: write resource names, projects/PROJECT/notificationChannels/ID."
  }
}

variable "max_instances" {
  description = "The most instances at once."
  type        = number
  default     = 3

  validation {
    condition     = var.max_instances >= 1
    error_message = "max_instances: write 1 or more."
  }
}

variable "min_instances" {
  description = "How many instances stay up when nobody asks; 0 costs least, 1 avoids cold starts."
  type        = number
  default     = 0

  validation {
    condition     = var.min_instances >= 0 && var.min_instances <= var.max_instances
    error_message = "min_instances: write 0 up to max_instances."
  }
}

variable "concurrency" {
  description = "The most requests at once in one instance."
  type        = number
  default     = 80

  validation {
    condition     = var.concurrency >= 1 && var.concurrency <= 1000
    error_message = "concurrency: write 1 to 1000."
  }
}

# For the function only.

variable "source_dir" {
  description = "Function only: the repository's directory, with go.mod; what its .gcloudignore names is not uploaded. By default the one that this module is in."
  type        = string
  default     = null

  validation {
    condition     = var.source_dir == null || var.image == null
    error_message = "source_dir: an image is not built from source: leave source_dir out, or write image = null for the function."
  }

  validation {
    condition     = var.image != null || fileexists("${coalesce(var.source_dir, "${path.module}/../..")}/.gcloudignore")
    error_message = "source_dir: no .gcloudignore there: write the directory of the repository, with go.mod and function.go."
  }
}

variable "build_service_account" {
  description = "Function only: the service account that builds it, as projects/PROJECT/serviceAccounts/EMAIL; by default the project's default one."
  type        = string
  default     = null

  validation {
    condition     = var.build_service_account == null || var.image == null
    error_message = "build_service_account: an image is not built here: leave build_service_account out, or write image = null for the function."
  }

  validation {
    condition     = can(regex("^projects/[^/]+/serviceAccounts/[^/]+@[^/]+$", coalesce(var.build_service_account, "projects/p/serviceAccounts/a@b")))
    error_message = "build_service_account: write projects/PROJECT/serviceAccounts/EMAIL."
  }
}

# For Cloud Run only.

variable "path" {
  description = "Cloud Run only: the path that answers. The function answers every path."
  type        = string
  default     = "/"

  validation {
    condition     = var.path == "/" || var.image != null
    error_message = "path: the function answers every path: leave path out, or give an image for Cloud Run."
  }

  validation {
    # https://cloud.google.com/run/docs/known-issues
    condition     = !endswith(var.path, "z")
    error_message = "path: Cloud Run keeps paths that end in z for itself: write another, such as /health."
  }

  validation {
    condition     = can(regex("^/[^?#\\s]*$", var.path)) && var.path != "/livez"
    error_message = "path: write a path such as /health, without a query; /livez is taken."
  }
}

variable "http2" {
  description = "Cloud Run only: whether requests reach the container over HTTP/2, end to end. gRPC callers want it; HTTP callers notice nothing."
  type        = bool
  default     = false

  validation {
    condition     = !var.http2 || var.image != null
    error_message = "http2: a function speaks HTTP/1.1 behind its URL, and no gRPC: leave http2 out, or give an image for Cloud Run."
  }
}

variable "deletion_protection" {
  description = "Cloud Run only: whether Terraform refuses to delete the service. null is true; a function has no such protection."
  type        = bool
  default     = null

  validation {
    condition     = var.deletion_protection == null || var.image != null
    error_message = "deletion_protection: a function has none: leave deletion_protection out, or give an image for Cloud Run."
  }
}

variable "metrics_sidecar" {
  description = "Cloud Run only: scrape the metrics with Managed Service for Prometheus. CPU is then billed as long as an instance lives, not for requests only."
  type        = bool
  default     = false

  validation {
    condition     = !var.metrics_sidecar || var.image != null
    error_message = "metrics_sidecar: a function has no metrics port and no sidecar: leave metrics_sidecar out, or give an image for Cloud Run."
  }
}

variable "load_balancer" {
  description = "Cloud Run only: an external Application Load Balancer for this domain that requires client certificates of these CAs (PEM). IAM still decides whom the service answers; through the load balancer the ID token's audience is https://DOMAIN."
  type = object({
    domain     = string
    client_cas = list(string)
  })
  default = null

  validation {
    condition     = var.load_balancer == null || var.image != null
    error_message = "load_balancer: a function takes no ID tokens for a domain: leave load_balancer out, or give an image for Cloud Run."
  }

  validation {
    condition     = can(regex("^([a-z0-9-]+\\.)+[a-z]{2,}$", try(var.load_balancer.domain, "example.com")))
    error_message = "load_balancer: write the domain alone, such as health.example.com."
  }

  validation {
    condition     = alltrue([for pem in try(var.load_balancer.client_cas, []) : startswith(pem, "-----BEGIN CERTIFICATE-----")]) && try(length(var.load_balancer.client_cas), 1) > 0
    error_message = "load_balancer: write at least one CA certificate as PEM text, such as file(\"ca.pem\"), one certificate each."
  }
}
