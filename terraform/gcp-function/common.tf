# What is checked, how, and who may ask: this file is the same in gcp-function and gcp-cloudrun (a test compares).

variable "project_id" {
  description = "The project to deploy to."
  type        = string
}

variable "region" {
  description = "The region to deploy to, such as europe-west1."
  type        = string
}

variable "name" {
  description = "The deployment's name; its service account, checks and alerts are named after it."
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
  description = "The upstream to check, host:port."
  type        = string

  validation {
    condition     = can(regex("^(dns://[^/]*/|passthrough:///)?(\\[[^\\]]+\\]|[^][:/\\s]+):[0-9]{1,5}$", var.grpc_addr))
    error_message = "grpc_addr: write the upstream with its port, such as grpc.example.com:443 or [2001:db8::1]:443."
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
  description = "Further settings, by their environment variable: the README of the project lists them. Unset, null and empty ones keep the program's defaults."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.settings) : contains(local.other_settings, name)])
    error_message = "settings: ${join(", ", setsubtract(keys(var.settings), local.other_settings))} cannot be set here. Settings with a variable of their own, and files (secrets), have it; the platform decides where to listen; what is left is ${join(", ", local.other_settings)}."
  }

  validation {
    condition = lookup(var.settings, "GRPC_TLS", null) == "true" || (
      var.id_token == null &&
      length(setintersection(keys(var.secrets), ["GRPC_CA_CERT", "GRPC_CLIENT_CERT", "GRPC_CLIENT_KEY"])) == 0 &&
      length(setintersection([for name, value in var.settings : name if value != null && value != ""], ["GRPC_SNI_SERVER_NAME", "GRPC_TLS_NO_VERIFY"])) == 0
    )
    error_message = "settings: certificates, a server name and an ID token mean nothing without TLS: write GRPC_TLS = true as well."
  }
}

variable "secrets" {
  description = "Secrets of Secret Manager, by the setting that reads them: GRPC_CA_CERT, GRPC_CLIENT_CERT, GRPC_CLIENT_KEY, HTTP_AUTH_TOKEN_FILE. A new version of the secret is used without a deployment where version is latest."
  type = map(object({
    secret  = string
    version = optional(string, "latest")
  }))
  default = {}

  validation {
    condition     = alltrue([for name in keys(var.secrets) : contains(local.file_settings, name)])
    error_message = "secrets: ${join(", ", setsubtract(keys(var.secrets), local.file_settings))} reads no file. Those that do are ${join(", ", local.file_settings)}; secrets to send as metadata are secret_headers."
  }

  validation {
    condition     = contains(keys(var.secrets), "GRPC_CLIENT_CERT") == contains(keys(var.secrets), "GRPC_CLIENT_KEY")
    error_message = "secrets: a client certificate and its key mean nothing without each other: write GRPC_CLIENT_CERT and GRPC_CLIENT_KEY, or neither."
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
    condition     = var.uptime_check == null || !contains(keys(var.secrets), "HTTP_AUTH_TOKEN_FILE")
    error_message = "secrets: the uptime check's OIDC token and HTTP_AUTH_TOKEN_FILE both need the header Authorization: leave the token out (IAM decides who may call), or write uptime_check = null."
  }
}

variable "secret_headers" {
  description = "Metadata to send whose values are secrets, by the header's name."
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

locals {
  file_settings = ["GRPC_CA_CERT", "GRPC_CLIENT_CERT", "GRPC_CLIENT_KEY", "HTTP_AUTH_TOKEN_FILE"]
  budget        = var.connect_timeout + var.rpc_timeout

  # Each secret has a directory of its own: the platform mounts no two in one.
  # https://cloud.google.com/functions/docs/configuring/secrets
  directories = { for setting in keys(var.secrets) : setting => lower(replace(setting, "_", "-")) }
  mounts = merge(
    { for setting, s in var.secrets : local.directories[setting] => s },
    { for header, s in var.secret_headers : "header-${header}" => s },
  )
  mounted_file = "value"

  # The settings that have variables of their own.
  own_settings = merge(
    {
      GRPC_ADDR         = var.grpc_addr
      SERVICE_NAME      = join(",", var.services)
      CONNECT_TIMEOUT   = "${var.connect_timeout}s"
      RPC_TIMEOUT       = "${var.rpc_timeout}s"
      ID_TOKEN_AUDIENCE = try(var.id_token.audience, null)
    },
    local.platform_settings,
  )
  environment = {
    for name, value in merge(
      var.settings,
      local.own_settings,
      { for setting, directory in local.directories : setting => "/secrets/${directory}/${local.mounted_file}" },
      { RPC_HEADERS = join("\n", compact(concat(
        [lookup(var.settings, "RPC_HEADERS", null)],
        [for header in keys(var.secret_headers) : "${header}: @/secrets/header-${header}/${local.mounted_file}"],
      ))) },
    ) : name => value if value != null && value != ""
  }

  # The path's end is never z, which Cloud Run keeps for itself: https://cloud.google.com/run/docs/known-issues
  paths = {
    for service in length(var.services) == 0 ? [""] : var.services :
    service == "" ? "(server)" : service => "${local.path}?${service == "" ? "" : "service=${urlencode(service)}&"}format=json"
  }
}

# Who the program is to the upstream and to Secret Manager.
resource "google_service_account" "runtime" {
  project      = var.project_id
  account_id   = var.name
  display_name = "${var.name}: gRPC health checks"
}

resource "google_secret_manager_secret_iam_member" "runtime" {
  for_each = local.mounts

  project   = var.project_id
  secret_id = each.value.secret
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.runtime.member
}

resource "google_cloud_run_v2_service_iam_member" "upstream" {
  count = var.id_token == null ? 0 : 1

  project  = coalesce(var.id_token.project, var.project_id)
  location = coalesce(var.id_token.region, var.region)
  name     = var.id_token.service
  role     = "roles/run.invoker"
  member   = google_service_account.runtime.member
}

resource "google_cloud_run_v2_service_iam_member" "invoker" {
  for_each = var.invokers

  project  = var.project_id
  location = var.region
  name     = local.service
  role     = "roles/run.invoker"
  member   = each.key
}

module "uptime" {
  source = "../modules/gcp-uptime"
  count  = var.uptime_check == null ? 0 : 1

  project_id            = var.project_id
  name                  = var.name
  host                  = trimprefix(local.uri, "https://")
  paths                 = local.paths
  schedule              = var.uptime_check
  alert_emails          = var.alert_emails
  notification_channels = var.notification_channels
}

data "google_project" "this" {
  project_id = var.project_id
}

# The uptime check calls as the service agent of Cloud Monitoring, which the first such check creates.
resource "google_cloud_run_v2_service_iam_member" "checker" {
  count = var.uptime_check == null ? 0 : 1

  project  = var.project_id
  location = var.region
  name     = local.service
  role     = "roles/run.invoker"
  member   = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-monitoring-notification.iam.gserviceaccount.com"

  depends_on = [module.uptime]
}
