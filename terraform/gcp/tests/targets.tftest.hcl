# Many upstreams. go test runs this twice: as it is, and with an image.

mock_provider "google" {
  source = "../mocks/google"
}

mock_provider "archive" {
  source = "../mocks/archive"
}

variables {
  project_id = "my-project"
  region     = "europe-west1"
  targets = {
    checkout = { addr = "checkout.internal:443", service_name = ["checkout.v1.Checkout", "checkout.v1.Refunds"], group = "payments" }
    ledger   = { addr = "ledger.internal:443", group = "payments", rpc_timeout = "3s", rpc_headers = { authorization = "@/secrets/ledger/value" } }
    search   = { addr = "search.internal:50051", tls = false }
  }
  target_defaults = { tls = true, ca_cert = "/secrets/backend-ca/value" }
  secrets = {
    backend-ca = { secret = "backend-ca" }
    ledger     = { secret = "ledger-authorization", version = "2" }
  }
}

run "each_target" {
  assert {
    condition     = google_secret_manager_secret_version.targets[0].secret_data == module.targets.content && google_secret_manager_secret_version.targets[0].secret == google_secret_manager_secret.targets[0].id
    error_message = "The file may hold secrets, so it is one."
  }
  assert {
    condition     = google_secret_manager_secret.targets[0].secret_id == "grpc-health-targets" && google_secret_manager_secret.targets[0].project == "my-project"
    error_message = "Two deployments in one project differ in their names."
  }
  assert {
    condition     = local.environment.GRPC_HEALTH_TARGETS_FILE == "/secrets/targets/value" && length(setintersection(keys(local.environment), ["GRPC_HEALTH_ADDR", "GRPC_HEALTH_CONNECT_TIMEOUT", "GRPC_HEALTH_RPC_TIMEOUT", "GRPC_HEALTH_SERVICE_NAME"])) == 0
    error_message = "The program refuses settings of one upstream beside a targets file: ${join(", ", keys(local.environment))}."
  }
  assert {
    condition     = { for directory, mount in local.mounts : directory => "${mount.secret} ${mount.version}" } == { targets = "grpc-health-targets 7", backend-ca = "backend-ca latest", ledger = "ledger-authorization 2" }
    error_message = "The file is mounted in its version, so that another content is another deployment: an instance never has an old file."
  }
  assert {
    condition     = var.image != null || toset(try(google_cloudfunctions2_function.health[0].service_config[0].secret_volumes[*].mount_path, [])) == toset(["/secrets/targets", "/secrets/backend-ca", "/secrets/ledger"])
    error_message = "The function has the file, and what the file names."
  }
  assert {
    condition     = var.image == null || { for mount in try(google_cloud_run_v2_service.proxy[0].template[0].containers[0].volume_mounts, []) : mount.name => mount.mount_path } == { targets = "/secrets/targets", backend-ca = "/secrets/backend-ca", ledger = "/secrets/ledger" }
    error_message = "The container has the file, and what the file names."
  }
  assert {
    condition     = google_secret_manager_secret_iam_member.runtime["targets"].secret_id == "grpc-health-targets" && google_secret_manager_secret_iam_member.runtime["targets"].role == "roles/secretmanager.secretAccessor"
    error_message = "A deployment fails where the service account may not read a secret that is mounted."
  }
  assert {
    condition     = { for name, check in module.uptime[0].checks : name => check.http_check[0].path } == { for name in ["checkout", "ledger", "search"] : name => "${var.path}?target=${name}&format=json" }
    error_message = "Each target has an uptime check of its own."
  }
  assert {
    condition     = local.budget == 4 && try(google_cloudfunctions2_function.health[0].service_config[0].timeout_seconds, tonumber(trimsuffix(google_cloud_run_v2_service.proxy[0].template[0].timeout, "s"))) == 5
    error_message = "The platform waits for the slowest target: ${local.budget} s."
  }
  assert {
    condition     = module.uptime[0].alerts.certificate.conditions[0].condition_matched_log[0].label_extractors.target == "EXTRACT(jsonPayload.target)" && strcontains(module.uptime[0].alerts.certificate.documentation[0].content, "$${log.extracted_label.target}")
    error_message = "Who is told of a certificate reads whose it is."
  }
  assert {
    condition     = strcontains(module.uptime[0].alerts.down.documentation[0].subject, "a target (of 3)") && strcontains(module.uptime[0].alerts.down.documentation[0].content, "$${metric.label.check_id}")
    error_message = "The check's ID has the target's name."
  }
  assert {
    condition     = toset(keys(output.uptime_check_ids)) == toset(["checkout", "ledger", "search"])
    error_message = "The checks are found by the targets' names."
  }
}

run "each_group" {
  variables {
    checks = "group"
  }
  assert {
    condition     = { for name, check in module.uptime[0].checks : name => check.http_check[0].path } == { "payments (group)" = "${var.path}?group=payments&format=json", search = "${var.path}?target=search&format=json" }
    error_message = "A group has one check, and a target without a group its own."
  }
}

run "all_at_once" {
  variables {
    checks = "all"
  }
  assert {
    condition     = { for name, check in module.uptime[0].checks : name => check.http_check[0].path } == { "(all)" = "${var.path}?format=json" }
    error_message = "One check asks for everything."
  }
}

run "on_a_schedule" {
  variables {
    uptime_check     = null
    schedule_minutes = 5
    alert_emails     = ["sre@example.com"]
  }
  assert {
    condition     = [for job in google_cloud_scheduler_job.check : "${job.name} ${job.schedule} ${job.http_target[0].http_method} ${job.http_target[0].uri}"] == ["grpc-health */5 * * * * GET https://grpc-health-abc123-ew.a.run.app${var.path}?format=json"]
    error_message = "One request is about everything, up to 100 targets."
  }
  assert {
    condition     = one(google_cloud_scheduler_job.check[0].http_target[0].oidc_token).audience == "https://grpc-health-abc123-ew.a.run.app" && one(google_cloud_scheduler_job.check[0].http_target[0].oidc_token).service_account_email == google_service_account.schedule[0].email
    error_message = "Cloud Run lets in whose token is for its URL."
  }
  assert {
    condition     = google_cloud_scheduler_job.check[0].retry_config[0].retry_count == 0 && google_cloud_scheduler_job.check[0].attempt_deadline == "15s" && google_cloud_scheduler_job.check[0].region == "europe-west1" && google_cloud_scheduler_job.check[0].project == "my-project"
    error_message = "A late check says nothing about now."
  }
  assert {
    condition     = one(google_cloud_run_v2_service_iam_member.schedule).role == "roles/run.invoker" && one(google_cloud_run_v2_service_iam_member.schedule).name == local.service && one(google_cloud_run_v2_service_iam_member.schedule).member == google_service_account.schedule[0].member && google_service_account.schedule[0].account_id == "grpc-health-sched"
    error_message = "The schedule may call this service, and no more."
  }
  assert {
    condition     = google_monitoring_alert_policy.schedule_down[0].conditions[0].condition_matched_log[0].filter == "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${local.service}\" AND resource.labels.location=\"europe-west1\" AND severity>=WARNING AND jsonPayload.health_status:* AND jsonPayload.health_status!=\"SERVING\"" && google_monitoring_alert_policy.schedule_down[0].alert_strategy[0].notification_rate_limit[0].period == "300s"
    error_message = "The log of this service tells what does not serve, by the keys that the program writes."
  }
  assert {
    condition     = alltrue([for key, extractor in google_monitoring_alert_policy.schedule_down[0].conditions[0].condition_matched_log[0].label_extractors : strcontains(google_monitoring_alert_policy.schedule_down[0].documentation[0].content, "$${log.extracted_label.${key}}")])
    error_message = "Who is woken up reads which target it is; Cloud Monitoring fills its variables in."
  }
  assert {
    condition     = google_monitoring_alert_policy.schedule_silent[0].conditions[0].condition_absent[0].duration == "900s" && strcontains(google_monitoring_alert_policy.schedule_silent[0].conditions[0].condition_absent[0].filter, "resource.label.service_name=\"${local.service}\"")
    error_message = "A schedule that has stopped is an alert."
  }
  assert {
    condition     = alltrue([for policy in [google_monitoring_alert_policy.schedule_down[0], google_monitoring_alert_policy.schedule_silent[0]] : policy.notification_channels == tolist(["projects/my-project/notificationChannels/1"]) && policy.project == "my-project" && strcontains(policy.documentation[0].content, "What to do: ")])
    error_message = "An alert without channels wakes nobody."
  }
}

run "on_several_schedules" {
  variables {
    uptime_check     = null
    schedule_minutes = 60
    targets          = { for i in range(150) : "t${i}" => { addr = "t:${i}", group = i < 149 ? "g${i % 2}" : null, rpc_timeout = "20s" } }
    target_defaults  = {}
  }
  assert {
    condition = [for job in google_cloud_scheduler_job.check : "${job.name} ${job.schedule} ${split("?", job.http_target[0].uri)[1]} ${job.attempt_deadline}"] == [
      "grpc-health 0 * * * * group=g0&format=json 26s", "grpc-health-2 0 * * * * group=g1&format=json 26s", "grpc-health-3 0 * * * * target=t149&format=json 26s",
    ]
    error_message = "Beyond 100 targets each group has a job, and each target without one: they run side by side."
  }
}

run "unscheduled" {
  assert {
    condition     = length(google_cloud_scheduler_job.check) == 0 && length(google_service_account.schedule) == 0 && length(google_monitoring_alert_policy.schedule_down) == 0 && length(google_monitoring_alert_policy.schedule_silent) == 0
    error_message = "Only who asks for it has a schedule."
  }
}

run "schedule_that_does_not_divide_an_hour" {
  command = plan
  variables {
    schedule_minutes = 7
  }
  expect_failures = [var.schedule_minutes]
}

run "schedule_with_a_token" {
  command = plan
  variables {
    uptime_check     = null
    schedule_minutes = 1
    secrets          = { GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE = { secret = "caller-token" }, backend-ca = { secret = "backend-ca" }, ledger = { secret = "ledger" } }
  }
  expect_failures = [var.schedule_minutes]
}

run "no_tls" {
  variables {
    target_defaults = {}
  }
  assert {
    condition     = module.uptime[0].alerts.certificate == null
    error_message = "Without TLS there is no certificate."
  }
}

run "callers_token" {
  variables {
    uptime_check = null
    secrets = {
      GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE = { secret = "caller-token" }
      backend-ca                       = { secret = "backend-ca" }
      ledger                           = { secret = "ledger-authorization" }
    }
  }
  assert {
    condition     = local.environment.GRPC_HEALTH_HTTP_AUTH_TOKEN_FILE == "/secrets/http-auth-token-file/value" && !contains(keys(local.environment), "backend-ca")
    error_message = "The callers' token is the whole deployment's."
  }
}

run "one_as_well" {
  command = plan
  variables {
    grpc_addr = "grpc.example.com:443"
  }
  expect_failures = [google_service_account.runtime]
}

run "services_as_well" {
  command = plan
  variables {
    services = ["quiz"]
  }
  expect_failures = [google_service_account.runtime]
}

run "headers_as_well" {
  command = plan
  variables {
    secret_headers = { x-api-key = { secret = "api-key" } }
  }
  expect_failures = [google_service_account.runtime]
}

run "id_token_as_well" {
  command = plan
  variables {
    id_token = { audience = "https://upstream-abc.a.run.app", service = "upstream" }
  }
  expect_failures = [google_service_account.runtime]
}

run "neither" {
  command = plan
  variables {
    targets         = {}
    target_defaults = {}
    secrets         = {}
  }
  expect_failures = [google_service_account.runtime]
}

run "defaults_of_nothing" {
  command = plan
  variables {
    grpc_addr = "grpc.example.com:443"
    targets   = {}
    secrets   = {}
  }
  expect_failures = [var.target_defaults]
}

run "checks_of_nothing" {
  command = plan
  variables {
    grpc_addr       = "grpc.example.com:443"
    targets         = {}
    target_defaults = {}
    secrets         = {}
    checks          = "group"
  }
  expect_failures = [var.checks]
}

run "setting_of_one_upstream" {
  command = plan
  variables {
    settings = { GRPC_HEALTH_TLS = true }
  }
  expect_failures = [var.settings]
}

run "secret_of_one_upstream" {
  command = plan
  variables {
    secrets = {
      GRPC_HEALTH_CA_CERT = { secret = "upstream-ca" }
      backend-ca          = { secret = "backend-ca" }
      ledger              = { secret = "ledger-authorization" }
    }
  }
  expect_failures = [var.secrets]
}

run "secret_that_nobody_mounts" {
  command = plan
  variables {
    secrets = { backend-ca = { secret = "backend-ca" } }
  }
  expect_failures = [google_secret_manager_secret.targets]
}

run "slower_than_the_checker" {
  command = plan
  variables {
    targets = { checkout = { addr = "checkout.internal:443", rpc_timeout = "10s" } }
  }
  expect_failures = [var.uptime_check]
}
