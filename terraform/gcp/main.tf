# What the function and Cloud Run have in common: the settings, who the program is, who may call, and what checks it.

locals {
  from_source = var.image == null

  # The settings that have a variable of their own, in the program's name; null is unset.
  own_settings = merge(
    {
      GRPC_HEALTH_ADDR              = { variable = "grpc_addr", value = var.grpc_addr }
      GRPC_HEALTH_SERVICE_NAME      = { variable = "services", value = join(",", var.services) }
      GRPC_HEALTH_CONNECT_TIMEOUT   = { variable = "connect_timeout", value = local.many ? null : "${var.connect_timeout}s" }
      GRPC_HEALTH_RPC_TIMEOUT       = { variable = "rpc_timeout", value = local.many ? null : "${var.rpc_timeout}s" }
      GRPC_HEALTH_TARGETS_FILE      = { variable = "targets", value = local.many ? "/secrets/targets/${local.mounted_file}" : null }
      GRPC_HEALTH_ID_TOKEN_AUDIENCE = { variable = "id_token", value = try(var.id_token.audience, null) }
    },
    # PORT says where to listen, and TLS ends in front of the container. The sidecar shares localhost.
    { for name, setting in {
      GRPC_HEALTH_HTTP_LISTEN_PATH         = { variable = "path", value = var.path }
      GRPC_HEALTH_METRICS_HTTP_LISTEN_ADDR = { variable = "metrics_sidecar", value = "localhost:${local.metrics_port}" }
    } : name => setting if !local.from_source },
  )
  file_settings = [
    "GRPC_HEALTH_CA_CERT", "GRPC_HEALTH_CLIENT_CERT", "GRPC_HEALTH_CLIENT_KEY", "GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE",
  ]
  other_settings = sort(concat(
    [
      "GRPC_HEALTH_ALL_ADDRESSES", "GRPC_HEALTH_MIN_HEALTHY_ADDRESSES", "GRPC_HEALTH_PAGE_TITLE",
      "GRPC_HEALTH_ALLOW_LIST", "GRPC_HEALTH_ALTS", "GRPC_HEALTH_ALTS_TARGET_SERVICE_ACCOUNTS", "GRPC_HEALTH_AUTHORITY",
      "GRPC_HEALTH_CONN_MAX_AGE", "GRPC_HEALTH_GZIP", "GRPC_HEALTH_LOG_FORMAT", "GRPC_HEALTH_LOG_LEVEL",
      "GRPC_HEALTH_MAX_CONCURRENT_CHECKS", "GRPC_HEALTH_SHOW_CAUSE", "GRPC_HEALTH_SNI_SERVER_NAME",
      "GRPC_HEALTH_TLS", "GRPC_HEALTH_TLS_NO_VERIFY", "GRPC_HEALTH_USER_AGENT",
    ],
    local.from_source ? [] : ["GRPC_HEALTH_SHUTDOWN_GRACE"],
  ))

  variable_for = merge(
    { for name, setting in local.own_settings : name => setting.variable },
    { for name in local.file_settings : name => "secrets" },
    # Metadata often is secret, and a value in settings is in the state, in the plan and in the console.
    { GRPC_HEALTH_RPC_HEADERS = "secret_headers" },
  )
  known_settings = concat(keys(local.variable_for), local.other_settings)

  # What belongs into the targets file, where there is one.
  upstream_settings = [for name in local.other_settings : name if contains(module.targets.keys, lower(trimprefix(name, "GRPC_HEALTH_")))]

  # Each secret has a directory of its own: the platform mounts no two in one.
  # https://cloud.google.com/functions/docs/configuring/secrets
  directories = { for name in keys(var.secrets) : name => lower(replace(trimprefix(name, "GRPC_HEALTH_"), "_", "-")) }
  mounts = merge(
    { for name, secret in var.secrets : local.directories[name] => secret },
    # A change of the file is another version, which deploys it: both the instances and their file are then new.
    { for version in google_secret_manager_secret_version.targets : "targets" => { secret = google_secret_manager_secret.targets[0].secret_id, version = version.version } },
    { for header, secret in var.secret_headers : "header-${header}" => secret },
  )
  mounted_file = "value"

  environment = {
    for name, value in merge(
      var.settings,
      { for name, setting in local.own_settings : name => setting.value },
      { for name, directory in local.directories : name => "/secrets/${directory}/${local.mounted_file}" if contains(local.file_settings, name) },
      { GRPC_HEALTH_RPC_HEADERS = join("\n", [for header in keys(var.secret_headers) : "${header}: @/secrets/header-${header}/${local.mounted_file}"]) },
    ) : name => value if value != null && value != ""
  }

  many = length(var.targets) > 0
  # For people.
  upstream = local.many ? "a target (of ${length(var.targets)})" : var.grpc_addr

  budget = local.many ? module.targets.budget : var.connect_timeout + var.rpc_timeout
  tls    = local.many ? length(module.targets.tls) > 0 : contains(["1", "t", "true"], lower(trimspace(coalesce(lookup(var.settings, "GRPC_HEALTH_TLS", null), "false"))))

  # A function of the second generation is a Cloud Run service of the same name.
  service = one(concat(google_cloudfunctions2_function.health[*].name, google_cloud_run_v2_service.proxy[*].name))
  uri     = one(concat(google_cloudfunctions2_function.health[*].service_config[0].uri, google_cloud_run_v2_service.proxy[*].uri))

  # The URL never ends in z, which Cloud Run keeps for itself: https://cloud.google.com/run/docs/known-issues
  paths = merge(
    { for name, check in module.targets.checks : name => "${var.path}?${check.query == "" ? "" : "${check.query}&"}format=json" },
    { for service in local.many ? [] : length(var.services) == 0 ? [""] : var.services :
      service == "" ? "(server)" : service => "${var.path}?${service == "" ? "" : "service=${urlencode(service)}&"}format=json"
    },
  )
}

module "targets" {
  source = "../modules/targets"

  targets     = var.targets
  defaults    = var.target_defaults
  timeouts    = { connect_timeout = var.connect_timeout, rpc_timeout = var.rpc_timeout }
  checks      = var.checks
  most_checks = { number = 100, reason = "which are the uptime checks of a project" } # https://cloud.google.com/monitoring/quotas
  most_bytes  = { number = 65536, advice = "that is what a secret holds: put what targets have in common into target_defaults, or make two deployments" }
}

resource "google_secret_manager_secret" "targets" {
  count = local.many ? 1 : 0

  project   = var.project_id
  secret_id = "${var.name}-targets"
  replication {
    auto {}
  }

  lifecycle {
    precondition {
      condition     = length(setsubtract(module.targets.sources, [for name in keys(var.secrets) : "/secrets/${name}/${local.mounted_file}"])) == 0
      error_message = "targets: nothing is mounted there: ${join(", ", setsubtract(module.targets.sources, [for name in keys(var.secrets) : "/secrets/${name}/${local.mounted_file}"]))}. What secrets mounts is ${jsonencode([for name in keys(var.secrets) : "/secrets/${name}/${local.mounted_file}" if !contains(local.file_settings, name)])}."
    }
  }
}

resource "google_secret_manager_secret_version" "targets" {
  count = local.many ? 1 : 0

  secret      = google_secret_manager_secret.targets[0].id
  secret_data = module.targets.content

  # The old one goes when nothing mounts it any more.
  lifecycle {
    create_before_destroy = true
  }
}

# Who the program is to the upstream and to Secret Manager.
resource "google_service_account" "runtime" {
  project      = var.project_id
  account_id   = var.name
  display_name = "${var.name}: gRPC health checks"

  # One upstream or many: not both.
  lifecycle {
    precondition {
      condition     = var.grpc_addr != null || local.many
      error_message = "grpc_addr: write the upstream with its port, such as grpc.example.com:443; or targets for many."
    }
    precondition {
      condition     = var.grpc_addr == null || !local.many
      error_message = "grpc_addr: is one upstream, and there are targets: leave it out, or write it as addr in one of them."
    }
    precondition {
      condition     = length(var.services) == 0 || !local.many
      error_message = "services: are of one upstream, and there are targets: write service_name in each, or in target_defaults."
    }
    precondition {
      condition     = var.id_token == null || !local.many
      error_message = "id_token: is for one upstream, and there are targets: write id_token_audience in each, and grant roles/run.invoker to the output service_account_email."
    }
    precondition {
      condition     = length(var.secret_headers) == 0 || !local.many
      error_message = "secret_headers: are for one upstream, and there are targets: mount the secret by a NAME in secrets, and write rpc_headers = { HEADER = \"@/secrets/NAME/${local.mounted_file}\" } in each, or in target_defaults."
    }
  }
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
  source = "./modules/uptime"
  count  = var.uptime_check == null ? 0 : 1

  project_id            = var.project_id
  name                  = var.name
  upstream              = local.upstream
  many                  = local.many
  service               = local.service
  region                = var.region
  certificate_days      = local.tls ? var.certificate_days : null
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

module "load_balancer" {
  source = "./modules/load-balancer"
  count  = var.load_balancer == null ? 0 : 1

  project_id     = var.project_id
  project_number = data.google_project.this.number
  region         = var.region
  name           = var.name
  service        = local.service
  domain         = var.load_balancer.domain
  client_cas     = var.load_balancer.client_cas
}
