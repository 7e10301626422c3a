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
  image      = "europe-west1-docker.pkg.dev/my-project/images/grpc-health-http:v1"
}

run "service" {
  assert {
    condition     = length(google_cloudfunctions2_function.health) == 0 && length(google_storage_bucket.source) == 0 && length(google_storage_bucket_object.source) == 0
    error_message = "An image deploys Cloud Run alone: no function, and no bucket for its source."
  }
  assert {
    condition     = length(data.archive_file.source) == 0 && length(local.gcloudignore) == 0
    error_message = "Cloud Run needs no source: the module reads none, and works where none is."
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].template[0].containers[0].image == var.image && length(google_cloud_run_v2_service.proxy[0].template[0].containers) == 1
    error_message = "One container of the image, and no sidecar that nothing asks for."
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].template[0].containers[0].ports[0].name == "http1" && google_cloud_run_v2_service.proxy[0].template[0].containers[0].ports[0].container_port == 8080
    error_message = "HTTP/1.1 unless it is asked for otherwise, on the image's port."
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].ingress == "INGRESS_TRAFFIC_ALL"
    error_message = "Uptime checkers come from outside: IAM keeps others out, not the ingress."
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].deletion_protection
    error_message = "A monitor is not deleted by accident."
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].template[0].service_account == google_service_account.runtime.email
    error_message = "Without its own account a service runs as the default one, which may do much."
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].template[0].containers[0].resources[0].cpu_idle
    error_message = "CPU is billed for requests only: nothing runs between them."
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].template[0].containers[0].resources[0].startup_cpu_boost
    error_message = "A check that starts an instance waits for it: more CPU shortens that."
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].template[0].containers[0].resources[0].limits == tomap({ cpu = "1", memory = "512Mi" })
    error_message = "More than one request at once wants a whole CPU, the second generation 512 MiB."
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].template[0].containers[0].startup_probe[0].http_get[0].path == "/livez" && google_cloud_run_v2_service.proxy[0].template[0].containers[0].liveness_probe[0].http_get[0].path == "/livez"
    error_message = "Probes never ask the upstream: a sick one would restart a healthy proxy."
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].template[0].containers[0].startup_probe[0].period_seconds * google_cloud_run_v2_service.proxy[0].template[0].containers[0].startup_probe[0].failure_threshold == 30 && google_cloud_run_v2_service.proxy[0].template[0].containers[0].startup_probe[0].period_seconds == 1
    error_message = "A start is seen within a second, and given up within Cloud Run's 240."
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].template[0].containers[0].liveness_probe[0].period_seconds == 60 && google_cloud_run_v2_service.proxy[0].template[0].containers[0].liveness_probe[0].failure_threshold == 3
    error_message = "Probes are billed: once a minute is enough, and one lost answer restarts nothing."
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].template[0].containers[0].ports[0].container_port == 8080
    error_message = "Cloud Run tells the port with PORT, and the probes go there."
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].template[0].scaling[0].min_instance_count == 0 && google_cloud_run_v2_service.proxy[0].template[0].scaling[0].max_instance_count == 3
    error_message = "Nothing runs when nobody asks, and instances have a bound."
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].template[0].max_instance_request_concurrency == 80 && google_cloud_run_v2_service.proxy[0].template[0].timeout == "3s"
    error_message = "The platform's deadline must not cut a check of 1 s and 1 s short."
  }
  assert {
    condition     = { for env in google_cloud_run_v2_service.proxy[0].template[0].containers[0].env : env.name => env.value } == { GRPC_HEALTH_CONNECT_TIMEOUT = "1s", GRPC_HEALTH_ADDR = "grpc.example.com:443", GRPC_HEALTH_HTTP_LISTEN_PATH = "/", GRPC_HEALTH_METRICS_HTTP_LISTEN_ADDR = "localhost:9000", GRPC_HEALTH_RPC_TIMEOUT = "1s" }
    error_message = "The settings are the container's environment; the metrics are for the sidecar alone."
  }
  assert {
    condition     = length(google_cloud_run_v2_service.proxy[0].template[0].volumes) == 0 && length(google_cloud_run_v2_service.proxy[0].template[0].vpc_access) == 0 && length(google_cloud_run_v2_service.proxy[0].custom_audiences) == 0
    error_message = "Nothing is mounted or attached that nothing asks for."
  }
  assert {
    condition     = length(google_project_iam_member.metrics_sidecar) == 0 && length(google_secret_manager_secret.metrics_sidecar) == 0 && output.load_balancer_ip == null
    error_message = "Least rights: without the sidecar nothing may write metrics."
  }
}

run "tuned" {
  variables {
    path                = "/health"
    services            = ["quiz"]
    concurrency         = 10
    min_instances       = 1
    max_instances       = 1
    http2               = true
    deletion_protection = false
    settings            = { GRPC_HEALTH_TLS = true, GRPC_HEALTH_SHUTDOWN_GRACE = "5s" }
    secrets = {
      GRPC_HEALTH_CLIENT_CERT = { secret = "client-cert", version = "3" }
      GRPC_HEALTH_CLIENT_KEY  = { secret = "client-key" }
    }
    vpc = { network = "backend", subnetwork = "run", tags = ["health"] }
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].template[0].containers[0].ports[0].name == "h2c"
    error_message = "gRPC callers reach the proxy over HTTP/2."
  }
  assert {
    condition     = local.paths == { quiz = "/health?service=quiz&format=json" } && local.environment.GRPC_HEALTH_HTTP_LISTEN_PATH == "/health"
    error_message = "The checker asks the path that the proxy answers, exactly."
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].template[0].max_instance_request_concurrency == 10 && google_cloud_run_v2_service.proxy[0].template[0].scaling[0].min_instance_count == 1 && google_cloud_run_v2_service.proxy[0].template[0].scaling[0].max_instance_count == 1
    error_message = "Scaling is as asked for."
  }
  assert {
    condition     = one([for env in google_cloud_run_v2_service.proxy[0].template[0].containers[0].env : env.value if env.name == "GRPC_HEALTH_SHUTDOWN_GRACE"]) == "5s"
    error_message = "The container has SIGTERM and a grace, which the function has not."
  }
  assert {
    condition     = !google_cloud_run_v2_service.proxy[0].deletion_protection
    error_message = "Cloud Run's protection outlives terraform destroy unless it is turned off."
  }
  assert {
    condition = [for mount in google_cloud_run_v2_service.proxy[0].template[0].containers[0].volume_mounts : [mount.name, mount.mount_path]] == [
      ["client-cert", "/secrets/client-cert"],
      ["client-key", "/secrets/client-key"],
    ]
    error_message = "Cloud Run mounts no two secrets in one directory: each has one of its own."
  }
  assert {
    condition = [for volume in google_cloud_run_v2_service.proxy[0].template[0].volumes : [volume.name, volume.secret[0].secret, volume.secret[0].items[0].version, volume.secret[0].items[0].path]] == [
      ["client-cert", "client-cert", "3", "value"],
      ["client-key", "client-key", "latest", "value"],
    ]
    error_message = "A volume has the secret's version as the file that the setting names."
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].template[0].vpc_access[0].egress == "PRIVATE_RANGES_ONLY"
    error_message = "Only private addresses go through the VPC, so that Google's and public ones need no NAT."
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].template[0].vpc_access[0].network_interfaces[0].network == "backend" && google_cloud_run_v2_service.proxy[0].template[0].vpc_access[0].network_interfaces[0].subnetwork == "run" && google_cloud_run_v2_service.proxy[0].template[0].vpc_access[0].network_interfaces[0].tags == tolist(["health"])
    error_message = "A private upstream is reached through an interface in its network; firewalls know it by its tags."
  }
}

run "all_traffic_through_the_vpc" {
  variables {
    vpc = { network = "backend", all_traffic = true }
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].template[0].vpc_access[0].egress == "ALL_TRAFFIC"
    error_message = "An upstream that admits the NAT's address only is asked through the VPC."
  }
}

run "metrics_sidecar" {
  variables {
    metrics_sidecar = true
  }
  # Where, and by what name.
  assert {
    condition = alltrue([for project in concat(
      [google_cloud_run_v2_service.proxy[0].project, google_secret_manager_secret.metrics_sidecar[0].project, google_secret_manager_secret_iam_member.metrics_sidecar[0].project],
      values(google_project_iam_member.metrics_sidecar)[*].project,
    ) : project == "my-project"])
    error_message = "Everything is in project_id: the provider's own project may be another."
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].location == "europe-west1" && google_cloud_run_v2_service.proxy[0].name == "grpc-health" && google_secret_manager_secret.metrics_sidecar[0].secret_id == "grpc-health-metrics-sidecar"
    error_message = "Names are the deployment's: two in one project differ in theirs."
  }
  assert {
    condition     = strcontains(google_cloud_run_v2_service.proxy[0].description, "grpc.example.com:443") && strcontains(google_service_account.runtime.display_name, "grpc-health")
    error_message = "The console says what this is for."
  }

  # The collector.
  assert {
    condition     = alltrue([for container in google_cloud_run_v2_service.proxy[0].template[0].containers : !container.resources[0].cpu_idle])
    error_message = "The sidecar scrapes between requests, too: without instance-based CPU scrapes fail."
  }
  assert {
    condition     = startswith(google_cloud_run_v2_service.proxy[0].template[0].containers[1].image, "us-docker.pkg.dev/cloud-ops-agents-artifacts/cloud-run-gmp-sidecar/") && google_cloud_run_v2_service.proxy[0].template[0].containers[1].depends_on == tolist(["proxy"]) && google_cloud_run_v2_service.proxy[0].template[0].containers[*].name == tolist(["proxy", "metrics"])
    error_message = "Google's collector starts when the proxy is up, by its name; the log tells both apart by theirs."
  }
  assert {
    condition     = length(google_cloud_run_v2_service.proxy[0].template[0].containers[1].ports) == 0
    error_message = "Only one container of a service may have a port."
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].template[0].containers[1].resources[0].limits == tomap({ cpu = "1", memory = "512Mi" })
    error_message = "A sidecar's resources are billed: they have a bound."
  }
  assert {
    condition     = yamldecode(google_secret_manager_secret_version.metrics_sidecar[0].secret_data).spec.endpoints[0].port == tonumber(split(":", local.environment.GRPC_HEALTH_METRICS_HTTP_LISTEN_ADDR)[1]) && yamldecode(google_secret_manager_secret_version.metrics_sidecar[0].secret_data).spec.endpoints[0].path == "/metrics"
    error_message = "The collector scrapes the port and path that the proxy serves."
  }
  assert {
    condition     = yamldecode(google_secret_manager_secret_version.metrics_sidecar[0].secret_data).kind == "RunMonitoring" && yamldecode(google_secret_manager_secret_version.metrics_sidecar[0].secret_data).apiVersion == "monitoring.googleapis.com/v1beta"
    error_message = "The collector reads a RunMonitoring, and ignores what it does not know."
  }
  assert {
    condition     = length(google_secret_manager_secret.metrics_sidecar[0].replication[0].auto) == 1 && yamldecode(google_secret_manager_secret_version.metrics_sidecar[0].secret_data).metadata.name == "grpc-health"
    error_message = "Secret Manager wants to know where a secret lies, the collector how its configuration is called."
  }
  assert {
    condition     = yamldecode(google_secret_manager_secret_version.metrics_sidecar[0].secret_data).spec.endpoints[0].interval == "30s"
    error_message = "Samples are billed: two a minute are enough for a check each minute."
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].template[0].containers[1].volume_mounts[0].mount_path == "/etc/rungmp" && google_cloud_run_v2_service.proxy[0].template[0].containers[1].volume_mounts[0].name == google_cloud_run_v2_service.proxy[0].template[0].volumes[0].name && google_cloud_run_v2_service.proxy[0].template[0].volumes[0].secret[0].items[0].path == "config.yaml"
    error_message = "The collector reads its configuration from /etc/rungmp/config.yaml."
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].template[0].volumes[0].secret[0].secret == "grpc-health-metrics-sidecar" && google_cloud_run_v2_service.proxy[0].template[0].volumes[0].secret[0].items[0].version == "7"
    error_message = "The collector reads its configuration at start only: another version deploys it."
  }
  assert {
    condition     = { for role, grant in google_project_iam_member.metrics_sidecar : role => grant.member } == { "roles/monitoring.metricWriter" = google_service_account.runtime.member, "roles/logging.logWriter" = google_service_account.runtime.member }
    error_message = "The collector writes metrics, and a log: the account may do both, and no more."
  }
  assert {
    condition     = one(google_secret_manager_secret_iam_member.metrics_sidecar).role == "roles/secretmanager.secretAccessor" && one(google_secret_manager_secret_iam_member.metrics_sidecar).member == google_service_account.runtime.member && one(google_secret_manager_secret_iam_member.metrics_sidecar).secret_id == "grpc-health-metrics-sidecar"
    error_message = "A deployment fails where the account may not read a secret that is mounted."
  }
}

run "load_balancer" {
  variables {
    load_balancer = { domain = "health.example.com", client_cas = ["-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"] }
  }
  assert {
    condition     = google_cloud_run_v2_service.proxy[0].custom_audiences == tolist(["https://health.example.com"])
    error_message = "Behind a load balancer callers know the domain: their ID tokens are for it."
  }
  assert {
    condition     = length(google_cloud_run_v2_service_iam_member.invoker) == 0 && google_cloud_run_v2_service.proxy[0].ingress == "INGRESS_TRAFFIC_ALL"
    error_message = "A load balancer opens the service to nobody: IAM still decides, and the checkers still come in."
  }
  assert {
    condition     = output.load_balancer_ip == "203.0.113.1"
    error_message = "The domain's A record needs the address."
  }
}
