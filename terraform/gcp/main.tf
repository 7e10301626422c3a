# What the function and Cloud Run have in common: the settings, who the program is, who may call, and what checks it.

locals {
  from_source = var.image == null

  # The settings that have a variable of their own, in the program's name; null is unset.
  own_settings = merge(
    {
      GRPC_HEALTH_ADDR              = { variable = "grpc_addr", value = var.grpc_addr }
      GRPC_HEALTH_SERVICE_NAME      = { variable = "services", value = join(",", var.services) }
      GRPC_HEALTH_CONNECT_TIMEOUT   = { variable = "connect_timeout", value = "${var.connect_timeout}s" }
      GRPC_HEALTH_RPC_TIMEOUT       = { variable = "rpc_timeout", value = "${var.rpc_timeout}s" }
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

  # Each secret has a directory of its own: the platform mounts no two in one.
  # https://cloud.google.com/functions/docs/configuring/secrets
  directories = { for name in keys(var.secrets) : name => lower(replace(trimprefix(name, "GRPC_HEALTH_"), "_", "-")) }
  mounts = merge(
    { for name, secret in var.secrets : local.directories[name] => secret },
    { for header, secret in var.secret_headers : "header-${header}" => secret },
  )
  mounted_file = "value"

  environment = {
    for name, value in merge(
      var.settings,
      { for name, setting in local.own_settings : name => setting.value },
      { for name, directory in local.directories : name => "/secrets/${directory}/${local.mounted_file}" },
      { GRPC_HEALTH_RPC_HEADERS = join("\n", [for header in keys(var.secret_headers) : "${header}: @/secrets/header-${header}/${local.mounted_file}"]) },
    ) : name => value if value != null && value != ""
  }

  budget = var.connect_timeout + var.rpc_timeout
  tls    = contains(["1", "t", "true"], lower(trimspace(coalesce(lookup(var.settings, "GRPC_HEALTH_TLS", null), "false"))))

  # A function of the second generation is a Cloud Run service of the same name.
  service = one(concat(google_cloudfunctions2_function.health[*].name, google_cloud_run_v2_service.proxy[*].name))
  uri     = one(concat(google_cloudfunctions2_function.health[*].service_config[0].uri, google_cloud_run_v2_service.proxy[*].uri))

  # The URL never ends in z, which Cloud Run keeps for itself: https://cloud.google.com/run/docs/known-issues
  paths = {
    for service in length(var.services) == 0 ? [""] : var.services :
    service == "" ? "(server)" : service => "${var.path}?${service == "" ? "" : "service=${urlencode(service)}&"}format=json"
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
  source = "./modules/uptime"
  count  = var.uptime_check == null ? 0 : 1

  project_id            = var.project_id
  name                  = var.name
  upstream              = var.grpc_addr
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
