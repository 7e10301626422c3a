locals {
  source_dir = coalesce(var.source_dir, "${path.module}/../..")

  # .gcloudignore as globs, so that the upload is the one of gcloud. A folder that matches is left out whole.
  # Cloud Run needs no source, nor this file.
  gcloudignore = local.from_source ? split("\n", file("${local.source_dir}/.gcloudignore")) : []
  ignored      = [for line in local.gcloudignore : line if line != "" && !startswith(line, "#")]
  excludes     = [for line in local.ignored : startswith(line, "/") ? trim(line, "/") : "**/${trim(line, "/")}"]
}

data "archive_file" "source" {
  count = local.from_source ? 1 : 0

  type             = "zip"
  source_dir       = local.source_dir
  excludes         = local.excludes
  output_path      = "${path.root}/.terraform/${var.name}-source.zip"
  output_file_mode = "0644" # the same bytes, whatever the umask
}

resource "google_storage_bucket" "source" {
  count = local.from_source ? 1 : 0

  project                     = var.project_id
  name                        = "${var.project_id}-${var.name}-source"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true # its only content is made from the source
}

resource "google_storage_bucket_object" "source" {
  count = local.from_source ? 1 : 0

  bucket = google_storage_bucket.source[0].name
  # Another source is another object, which deploys it.
  name   = "${data.archive_file.source[0].output_sha256}.zip"
  source = data.archive_file.source[0].output_path
}

resource "google_cloudfunctions2_function" "health" {
  count = local.from_source ? 1 : 0

  project     = var.project_id
  location    = var.region
  name        = var.name
  description = "Answers with the health of ${local.many ? "${length(var.targets)} gRPC servers" : "the gRPC server ${var.grpc_addr}"}"

  build_config {
    runtime         = "go126"
    entry_point     = "HealthCheck"
    service_account = var.build_service_account
    source {
      storage_source {
        bucket = google_storage_bucket.source[0].name
        object = google_storage_bucket_object.source[0].name
      }
    }
  }

  service_config {
    service_account_email = google_service_account.runtime.email
    # The checkers come from outside; IAM decides whom the function answers.
    ingress_settings = "ALLOW_ALL"
    # Longer than any check: the program answers 200 ms before it.
    timeout_seconds    = ceil(local.budget + 1)
    min_instance_count = var.min_instances
    max_instance_count = var.max_instances
    available_memory   = "256Mi"
    # Checkers of many places ask at the same time, and one instance is enough. More than one request at once
    # wants a whole CPU: https://cloud.google.com/functions/docs/configuring/concurrency
    available_cpu                    = "1"
    max_instance_request_concurrency = var.concurrency
    environment_variables            = local.environment
    direct_vpc_egress                = var.vpc == null ? null : var.vpc.all_traffic ? "VPC_EGRESS_ALL_TRAFFIC" : "VPC_EGRESS_PRIVATE_RANGES_ONLY"

    dynamic "direct_vpc_network_interface" {
      for_each = var.vpc[*]
      content {
        network    = direct_vpc_network_interface.value.network
        subnetwork = direct_vpc_network_interface.value.subnetwork
        tags       = direct_vpc_network_interface.value.tags
      }
    }

    dynamic "secret_volumes" {
      for_each = local.mounts
      content {
        mount_path = "/secrets/${secret_volumes.key}"
        project_id = var.project_id
        secret     = secret_volumes.value.secret
        versions {
          version = secret_volumes.value.version
          path    = local.mounted_file
        }
      }
    }
  }

  # A deployment fails where the secrets cannot be read.
  depends_on = [google_secret_manager_secret_iam_member.runtime]
}
