# What the function and Cloud Run have in common. go test runs this twice: as it is, and with an image.

mock_provider "google" {
  source = "../mocks/google"
}

mock_provider "archive" {
  source = "../mocks/archive"
}

variables {
  project_id = "my-project"
  region     = "europe-west1"
  grpc_addr  = "grpc.example.com:443"
}

run "private_by_default" {
  assert {
    condition     = module.uptime[0].alerts.certificate == null
    error_message = "Without TLS there is no certificate."
  }
  assert {
    condition     = strcontains(module.uptime[0].alerts.down.documentation[0].content, "grpc.example.com:443")
    error_message = "Who is woken up reads which server it is about."
  }
  assert {
    condition     = length(google_cloud_run_v2_service_iam_member.invoker) == 0
    error_message = "Who may call is decided by roles/run.invoker: by default nobody but the checker has it."
  }
  assert {
    condition     = one(google_cloud_run_v2_service_iam_member.checker).member == "serviceAccount:service-123456789012@gcp-sa-monitoring-notification.iam.gserviceaccount.com"
    error_message = "An uptime check with OIDC calls as the project's service agent of Cloud Monitoring."
  }
  assert {
    condition     = one(google_cloud_run_v2_service_iam_member.checker).role == "roles/run.invoker"
    error_message = "Cloud Run lets in who has roles/run.invoker, and the checker needs no more."
  }
  assert {
    condition     = one(google_cloud_run_v2_service_iam_member.checker).name == local.service && one(google_cloud_run_v2_service_iam_member.checker).location == "europe-west1"
    error_message = "The right to call is granted on the service, where it is: not on the project."
  }
  assert {
    condition     = length(google_cloud_run_v2_service_iam_member.upstream) == 0 && length(google_secret_manager_secret_iam_member.runtime) == 0
    error_message = "Least rights: the service account has none that nothing asks for."
  }
  assert {
    condition     = toset(keys(local.environment)) == setunion(["GRPC_HEALTH_CONNECT_TIMEOUT", "GRPC_HEALTH_ADDR", "GRPC_HEALTH_RPC_TIMEOUT"], var.image == null ? [] : ["GRPC_HEALTH_HTTP_LISTEN_PATH", "GRPC_HEALTH_METRICS_HTTP_LISTEN_ADDR"])
    error_message = "An unset setting is absent from the environment, so that the program's default holds: ${join(", ", keys(local.environment))}."
  }
  assert {
    condition     = local.environment.GRPC_HEALTH_ADDR == "grpc.example.com:443" && local.environment.GRPC_HEALTH_CONNECT_TIMEOUT == "1s" && local.environment.GRPC_HEALTH_RPC_TIMEOUT == "1s"
    error_message = "Budgets are Go durations, with their unit."
  }
  assert {
    condition     = local.paths == { "(server)" = "${var.path}?format=json" }
    error_message = "Without services one check asks for the whole server, as JSON for the matcher."
  }
  assert {
    condition     = module.uptime[0].checks["(server)"].monitored_resource[0].labels.host == "grpc-health-abc123-ew.a.run.app"
    error_message = "The monitored resource's host has no scheme and no path."
  }
  assert {
    condition     = module.uptime[0].checks["(server)"].http_check[0].path == local.paths["(server)"] && module.uptime[0].checks["(server)"].period == "60s" && module.uptime[0].checks["(server)"].timeout == "10s"
    error_message = "The checker asks the path, as often and as long as uptime_check says."
  }
  assert {
    condition     = output.uri == "https://grpc-health-abc123-ew.a.run.app" && output.service_account_email == google_service_account.runtime.email && output.uptime_check_ids == { "(server)" = "grpc-health-abc" }
    error_message = "The next step needs the URL, the account and the checks."
  }
}

run "services" {
  variables {
    services = ["echo.EchoServer", "a&b/c", "quiz"]
  }
  assert {
    condition     = sort([for service, check in module.uptime[0].checks : service]) == tolist(["a&b/c", "echo.EchoServer", "quiz"])
    error_message = "Each service has an uptime check of its own."
  }
  assert {
    condition     = module.uptime[0].checks["a&b/c"].http_check[0].path == "${var.path}?service=a%26b%2Fc&format=json"
    error_message = "A name in a query is escaped."
  }
  assert {
    condition     = alltrue([for path in values(local.paths) : !endswith(path, "z")])
    error_message = "Cloud Run keeps URLs that end in z for itself."
  }
  assert {
    condition     = local.environment.GRPC_HEALTH_SERVICE_NAME == "a&b/c,echo.EchoServer,quiz"
    error_message = "GRPC_HEALTH_SERVICE_NAME pins the services: others are 404."
  }
}

run "everything" {
  variables {
    name     = "everything"
    services = ["echo.EchoServer"]
    settings = {
      GRPC_HEALTH_TLS             = true
      GRPC_HEALTH_SNI_SERVER_NAME = ""
      GRPC_HEALTH_GZIP            = null
      GRPC_HEALTH_LOG_LEVEL       = "debug"
    }
    secrets = {
      GRPC_HEALTH_CA_CERT     = { secret = "upstream-ca" }
      GRPC_HEALTH_CLIENT_CERT = { secret = "client-cert", version = "3" }
      GRPC_HEALTH_CLIENT_KEY  = { secret = "client-key" }
    }
    secret_headers = {
      x-api-key = { secret = "api-key" }
    }
    id_token = {
      audience = "https://upstream-abc.a.run.app"
      service  = "upstream"
      region   = "europe-west4"
    }
    connect_timeout       = 0.5
    rpc_timeout           = 2
    invokers              = ["group:sre@example.com"]
    uptime_check          = { period = 300, timeout = 5, regions = ["EUROPE", "USA"] }
    alert_emails          = ["sre@example.com"]
    notification_channels = ["projects/my-project/notificationChannels/42"]
  }
  assert {
    condition = { for name, value in local.environment : name => value if !contains(["GRPC_HEALTH_HTTP_LISTEN_PATH", "GRPC_HEALTH_METRICS_HTTP_LISTEN_ADDR"], name) } == {
      GRPC_HEALTH_CONNECT_TIMEOUT   = "0.5s"
      GRPC_HEALTH_ADDR              = "grpc.example.com:443"
      GRPC_HEALTH_CA_CERT           = "/secrets/ca-cert/value"
      GRPC_HEALTH_CLIENT_CERT       = "/secrets/client-cert/value"
      GRPC_HEALTH_CLIENT_KEY        = "/secrets/client-key/value"
      GRPC_HEALTH_TLS               = "true"
      GRPC_HEALTH_ID_TOKEN_AUDIENCE = "https://upstream-abc.a.run.app"
      GRPC_HEALTH_LOG_LEVEL         = "debug"
      GRPC_HEALTH_RPC_HEADERS       = "x-api-key: @/secrets/header-x-api-key/value"
      GRPC_HEALTH_RPC_TIMEOUT       = "2s"
      GRPC_HEALTH_SERVICE_NAME      = "echo.EchoServer"
    }
    error_message = "The environment has the settings that are set, the paths of what is mounted, and nothing else: ${jsonencode(local.environment)}."
  }
  assert {
    condition     = { for mount, grant in google_secret_manager_secret_iam_member.runtime : mount => grant.secret_id } == { ca-cert = "upstream-ca", client-cert = "client-cert", client-key = "client-key", header-x-api-key = "api-key" }
    error_message = "A deployment fails where the service account may not read a secret that is mounted."
  }
  assert {
    condition     = alltrue([for grant in google_secret_manager_secret_iam_member.runtime : grant.role == "roles/secretmanager.secretAccessor" && grant.member == google_service_account.runtime.member])
    error_message = "Least rights: this account may read these secrets, on the secrets."
  }
  assert {
    condition     = one(google_cloud_run_v2_service_iam_member.upstream).name == "upstream" && one(google_cloud_run_v2_service_iam_member.upstream).location == "europe-west4" && one(google_cloud_run_v2_service_iam_member.upstream).project == "my-project"
    error_message = "A private Cloud Run upstream lets this account in on that service only."
  }
  assert {
    condition     = one(google_cloud_run_v2_service_iam_member.upstream).role == "roles/run.invoker" && one(google_cloud_run_v2_service_iam_member.upstream).member == google_service_account.runtime.member
    error_message = "An ID token opens nothing without roles/run.invoker for the account that it names."
  }
  assert {
    condition     = google_cloud_run_v2_service_iam_member.invoker["group:sre@example.com"].member == "group:sre@example.com" && google_cloud_run_v2_service_iam_member.invoker["group:sre@example.com"].role == "roles/run.invoker" && google_cloud_run_v2_service_iam_member.invoker["group:sre@example.com"].name == local.service
    error_message = "Callers are granted the right to call the service, and no more."
  }
  assert {
    condition     = module.uptime[0].checks["echo.EchoServer"].period == "300s" && module.uptime[0].checks["echo.EchoServer"].timeout == "5s" && module.uptime[0].checks["echo.EchoServer"].selected_regions == tolist(["EUROPE", "USA"])
    error_message = "The checker asks as uptime_check says."
  }
  assert {
    condition     = module.uptime[0].checks["echo.EchoServer"].display_name == "everything: echo.EchoServer"
    error_message = "Checks are named after the deployment: names tell them apart in the console."
  }
  assert {
    condition     = module.uptime[0].alerts.down.notification_channels == tolist(["projects/my-project/notificationChannels/42", "projects/my-project/notificationChannels/1"])
    error_message = "An alert tells the channels that exist and those of the addresses."
  }
  assert {
    condition     = google_service_account.runtime.account_id == "everything"
    error_message = "The deployment has a service account of its own, not the default one."
  }
}

run "where" {
  variables {
    secrets  = { GRPC_HEALTH_CA_CERT = { secret = "upstream-ca" } }
    settings = { GRPC_HEALTH_TLS = true }
    invokers = ["group:sre@example.com"]
    id_token = { audience = "https://upstream-abc.a.run.app", service = "upstream", project = "upstream-project" }
  }
  assert {
    condition = alltrue([for project in concat(
      [google_service_account.runtime.project, data.google_project.this.project_id],
      values(google_secret_manager_secret_iam_member.runtime)[*].project,
      values(google_cloud_run_v2_service_iam_member.invoker)[*].project,
      google_cloud_run_v2_service_iam_member.checker[*].project,
    ) : project == "my-project"])
    error_message = "Everything is in project_id: the provider's own project may be another."
  }
  assert {
    condition     = one(google_cloud_run_v2_service_iam_member.upstream).project == "upstream-project" && one(google_cloud_run_v2_service_iam_member.upstream).location == "europe-west1"
    error_message = "The upstream is where it is said to be, and in the same region unless said."
  }
  assert {
    condition     = google_cloud_run_v2_service_iam_member.invoker["group:sre@example.com"].location == "europe-west1"
    error_message = "A Cloud Run service is found by its region."
  }
}

run "public_when_asked_for" {
  variables {
    invokers     = ["allUsers"]
    uptime_check = null
    secrets      = { GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE = { secret = "caller-token" } }
  }
  assert {
    condition     = toset(keys(google_cloud_run_v2_service_iam_member.invoker)) == toset(["allUsers"])
    error_message = "allUsers is public, and only where it is written."
  }
  assert {
    condition     = length(module.uptime) == 0 && length(google_cloud_run_v2_service_iam_member.checker) == 0 && output.uptime_check_ids == {}
    error_message = "Without an uptime check the agent of Cloud Monitoring has no business here."
  }
  assert {
    condition     = local.environment.GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE == "/secrets/http-auth-token-file/value"
    error_message = "The program reads the callers' token from the mounted secret."
  }
}

run "certificates" {
  variables {
    settings         = { GRPC_HEALTH_TLS = "TRUE" }
    certificate_days = 7
  }
  assert {
    condition     = module.uptime[0].alerts.certificate.conditions[0].condition_matched_log[0].filter == "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${local.service}\" AND resource.labels.location=\"europe-west1\" AND jsonPayload.certificate_days_left < 7"
    error_message = "With TLS there is an alert on certificates, of this service alone."
  }
}
