mock_provider "google" {
  source = "../../../mocks/google"
}

variables {
  project_id            = "my-project"
  name                  = "grpc-health"
  upstream              = "grpc.example.com:443"
  service               = "grpc-health"
  region                = "europe-west1"
  certificate_days      = 14
  host                  = "grpc-health-abc123-ew.a.run.app"
  paths                 = { "echo.EchoServer" = "/?service=echo.EchoServer&format=json", "quiz" = "/?service=quiz&format=json" }
  schedule              = { period = 60, timeout = 10, regions = [] }
  alert_emails          = ["sre@example.com"]
  notification_channels = ["projects/my-project/notificationChannels/42"]
}

run "by_default" {
  # The checks.
  assert {
    condition     = tomap({ for service, check in google_monitoring_uptime_check_config.service : service => check.http_check[0].path }) == var.paths
    error_message = "A check asks for one service: a failure tells which."
  }
  assert {
    condition     = one(google_monitoring_uptime_check_config.service["quiz"].http_check[0].service_agent_authentication).type == "OIDC_TOKEN"
    error_message = "Cloud Run lets nobody in without a token."
  }
  assert {
    condition     = google_monitoring_uptime_check_config.service["quiz"].http_check[0].use_ssl && google_monitoring_uptime_check_config.service["quiz"].http_check[0].validate_ssl && google_monitoring_uptime_check_config.service["quiz"].http_check[0].port == 443
    error_message = "A token is for nobody but the host whose certificate was verified."
  }
  assert {
    condition     = google_monitoring_uptime_check_config.service["quiz"].http_check[0].request_method == "GET"
    error_message = "The program answers GET and HEAD only."
  }
  assert {
    condition     = [for code in google_monitoring_uptime_check_config.service["quiz"].http_check[0].accepted_response_status_codes : code.status_value] == [200]
    error_message = "By default any 2xx passes; only 200 is a verdict of SERVING."
  }
  assert {
    condition     = google_monitoring_uptime_check_config.service["quiz"].content_matchers[0].content == "\"SERVING\"" && google_monitoring_uptime_check_config.service["quiz"].content_matchers[0].matcher == "MATCHES_JSON_PATH"
    error_message = "A JSONPath matcher compares JSON with JSON: the text has its quotes."
  }
  assert {
    condition     = google_monitoring_uptime_check_config.service["quiz"].content_matchers[0].json_path_matcher[0].json_path == "$.status" && google_monitoring_uptime_check_config.service["quiz"].content_matchers[0].json_path_matcher[0].json_matcher == "EXACT_MATCH"
    error_message = "NOT_SERVING holds SERVING: only the whole status may match."
  }
  assert {
    condition     = length(google_monitoring_uptime_check_config.service["quiz"].content_matchers) == 1
    error_message = "Cloud Monitoring looks at the first matcher alone."
  }
  assert {
    condition     = google_monitoring_uptime_check_config.service["quiz"].monitored_resource[0].type == "uptime_url" && google_monitoring_uptime_check_config.service["quiz"].monitored_resource[0].labels == tomap({ project_id = "my-project", host = "grpc-health-abc123-ew.a.run.app" })
    error_message = "A public host is an uptime_url, with these labels."
  }
  assert {
    condition     = google_monitoring_uptime_check_config.service["quiz"].period == "60s" && google_monitoring_uptime_check_config.service["quiz"].timeout == "10s"
    error_message = "The API takes durations in seconds, with their unit."
  }
  assert {
    condition     = google_monitoring_uptime_check_config.service["quiz"].selected_regions == null
    error_message = "All places are asked from where none is named: an empty list is not that."
  }

  # Where, and by what name.
  assert {
    condition = alltrue([for project in concat(
      values(google_monitoring_uptime_check_config.service)[*].project,
      values(google_monitoring_notification_channel.email)[*].project,
      [google_monitoring_alert_policy.down.project, google_monitoring_alert_policy.no_data.project, google_monitoring_dashboard.health.project],
    ) : project == "my-project"])
    error_message = "Everything is in project_id: the provider's own project may be another."
  }
  assert {
    condition     = google_monitoring_notification_channel.email["sre@example.com"].display_name == "grpc-health: sre@example.com" && google_monitoring_uptime_check_config.service["quiz"].display_name == "grpc-health: quiz"
    error_message = "The console lists all of a project: names tell deployments apart."
  }

  # The alert that a service does not serve.
  assert {
    condition     = google_monitoring_alert_policy.down.conditions[0].condition_threshold[0].comparison == "COMPARISON_GT" && google_monitoring_alert_policy.down.conditions[0].condition_threshold[0].threshold_value == 1 && google_monitoring_alert_policy.down.conditions[0].condition_threshold[0].aggregations[0].cross_series_reducer == "REDUCE_COUNT_FALSE"
    error_message = "Two failing places are a fault of the service; one may be its own network's."
  }
  assert {
    condition     = google_monitoring_alert_policy.down.conditions[0].condition_threshold[0].aggregations[0].per_series_aligner == "ALIGN_NEXT_OLDER" && google_monitoring_alert_policy.down.conditions[0].condition_threshold[0].aggregations[0].alignment_period == "120s"
    error_message = "A place's latest result counts for two periods, so that a late one is no gap."
  }
  assert {
    condition     = var.schedule.period + var.schedule.timeout + tonumber(trimsuffix(google_monitoring_alert_policy.down.conditions[0].condition_threshold[0].duration, "s")) + tonumber(trimsuffix(google_monitoring_alert_policy.down.conditions[0].condition_threshold[0].aggregations[0].alignment_period, "s")) <= 300
    error_message = "An outage is told within 5 minutes of its begin."
  }
  assert {
    condition     = google_monitoring_alert_policy.down.conditions[0].condition_threshold[0].aggregations[0].group_by_fields == tolist(["metric.label.check_id"])
    error_message = "Places are counted for each check: two services with one failing place each are no outage."
  }
  assert {
    condition     = strcontains(google_monitoring_alert_policy.down.conditions[0].condition_threshold[0].filter, "metric.type=\"monitoring.googleapis.com/uptime_check/check_passed\"") && strcontains(google_monitoring_alert_policy.down.conditions[0].condition_threshold[0].filter, "resource.type=\"uptime_url\"") && strcontains(google_monitoring_alert_policy.down.conditions[0].condition_threshold[0].filter, "resource.label.host=\"grpc-health-abc123-ew.a.run.app\"")
    error_message = "The policy is about these checks, not about others in the project."
  }
  assert {
    condition     = one(google_monitoring_alert_policy.down.conditions[0].condition_threshold[0].trigger).count == 1
    error_message = "One service that is down is enough."
  }
  assert {
    condition     = google_monitoring_alert_policy.down.severity == "CRITICAL" && strcontains(google_monitoring_alert_policy.down.documentation[0].content, "Grpc-Health-Evidence") && strcontains(google_monitoring_alert_policy.down.documentation[0].content, "resource.labels.service_name=\"grpc-health\"") && strcontains(google_monitoring_alert_policy.down.documentation[0].content, "$${metric.label.check_id}")
    error_message = "The message says which check failed, and where to look; Cloud Monitoring fills its variables in."
  }
  assert {
    condition     = google_monitoring_alert_policy.down.combiner == "OR"
    error_message = "A policy with one condition needs a combiner all the same."
  }

  # The alert that nobody has checked.
  assert {
    condition     = google_monitoring_alert_policy.no_data.conditions[0].condition_absent[0].duration == "180s"
    error_message = "The API takes whole minutes, two at least; three missing results are no accident."
  }
  assert {
    condition     = google_monitoring_alert_policy.no_data.conditions[0].condition_absent[0].filter == google_monitoring_alert_policy.down.conditions[0].condition_threshold[0].filter
    error_message = "What is missed is what the other policy looks at."
  }
  assert {
    condition     = google_monitoring_alert_policy.no_data.conditions[0].condition_absent[0].aggregations[0].group_by_fields == tolist(["metric.label.check_id"]) && google_monitoring_alert_policy.no_data.conditions[0].condition_absent[0].aggregations[0].cross_series_reducer == "REDUCE_SUM" && google_monitoring_alert_policy.no_data.conditions[0].condition_absent[0].aggregations[0].per_series_aligner == "ALIGN_COUNT" && google_monitoring_alert_policy.no_data.conditions[0].condition_absent[0].aggregations[0].alignment_period == "60s"
    error_message = "A check is missed when all its places are silent, not when Cloud Monitoring moves one."
  }
  assert {
    condition     = one(google_monitoring_alert_policy.no_data.conditions[0].condition_absent[0].trigger).count == 1
    error_message = "One check that nobody makes is enough."
  }

  assert {
    condition     = google_monitoring_alert_policy.no_data.severity == "WARNING" && strcontains(google_monitoring_alert_policy.no_data.documentation[0].content, "grpc-health")
    error_message = "Nobody knows whether the server is up: the message says that, less urgently."
  }

  # The alert on certificates.
  assert {
    condition     = google_monitoring_alert_policy.certificate[0].conditions[0].condition_matched_log[0].filter == "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"grpc-health\" AND resource.labels.location=\"europe-west1\" AND jsonPayload.certificate_days_left < 14"
    error_message = "The upstream's certificate is in the log of this deployment, by the key that the program writes; the uptime check sees Google's."
  }
  assert {
    condition     = google_monitoring_alert_policy.certificate[0].conditions[0].condition_matched_log[0].label_extractors == tomap({ certificate = "EXTRACT(jsonPayload.certificate)", days_left = "EXTRACT(jsonPayload.certificate_days_left)" }) && strcontains(google_monitoring_alert_policy.certificate[0].documentation[0].content, "$${log.extracted_label.certificate}") && strcontains(google_monitoring_alert_policy.certificate[0].documentation[0].content, "$${log.extracted_label.days_left}")
    error_message = "The message says which certificate, and how long it has; Cloud Monitoring fills its variables in."
  }
  assert {
    condition     = google_monitoring_alert_policy.certificate[0].alert_strategy[0].notification_rate_limit[0].period == "86400s" && google_monitoring_alert_policy.certificate[0].alert_strategy[0].auto_close == "172800s"
    error_message = "The API refuses a policy on a log without a limit; the log tells it each hour, and nobody needs that."
  }
  assert {
    condition     = google_monitoring_alert_policy.certificate[0].severity == "WARNING" && google_monitoring_alert_policy.certificate[0].combiner == "OR" && google_monitoring_alert_policy.certificate[0].project == "my-project" && google_monitoring_alert_policy.certificate[0].display_name == "grpc-health: a certificate ends soon"
    error_message = "There is time; and the console lists all of a project: names tell deployments apart."
  }

  # What people read.
  assert {
    condition = alltrue([for policy in [google_monitoring_alert_policy.down, google_monitoring_alert_policy.no_data, google_monitoring_alert_policy.certificate[0]] :
      strcontains(policy.documentation[0].subject, "grpc.example.com:443") && length(policy.documentation[0].subject) <= 255 && strcontains(policy.documentation[0].content, "grpc.example.com:443") && strcontains(policy.documentation[0].content, "What to do: ") && strcontains(policy.documentation[0].content, "docs/google-cloud.md") && strcontains(policy.documentation[0].content, "grpc-health")
    ])
    error_message = "Who is woken up reads which server it is about and what to do."
  }

  # Whom the alerts tell.
  assert {
    condition     = google_monitoring_notification_channel.email["sre@example.com"].type == "email" && google_monitoring_notification_channel.email["sre@example.com"].labels == tomap({ email_address = "sre@example.com" })
    error_message = "An email channel has its address in this label."
  }
  assert {
    condition     = alltrue([for policy in [google_monitoring_alert_policy.down, google_monitoring_alert_policy.no_data, google_monitoring_alert_policy.certificate[0]] : policy.notification_channels == tolist(["projects/my-project/notificationChannels/42", "projects/my-project/notificationChannels/1"])])
    error_message = "An alert without channels wakes nobody."
  }

  # The dashboard.
  assert {
    condition     = [for tile in jsondecode(google_monitoring_dashboard.health.dashboard_json).mosaicLayout.tiles : tile.widget.xyChart.dataSets[0].timeSeriesQuery.timeSeriesFilter.filter] == [local.passed, replace(local.passed, "check_passed", "request_latency")]
    error_message = "The dashboard shows what the checkers saw, and how long they waited."
  }
  assert {
    condition     = alltrue([for tile in jsondecode(google_monitoring_dashboard.health.dashboard_json).mosaicLayout.tiles : tile.xPos + tile.width <= 48]) && jsondecode(google_monitoring_dashboard.health.dashboard_json).mosaicLayout.columns == 48
    error_message = "Tiles lie within the columns, beside each other."
  }
  assert {
    condition     = length(distinct([for tile in jsondecode(google_monitoring_dashboard.health.dashboard_json).mosaicLayout.tiles : tile.xPos])) == 2
    error_message = "Tiles must not overlap."
  }

  assert {
    condition = [for tile in jsondecode(google_monitoring_dashboard.health.dashboard_json).mosaicLayout.tiles : tile.widget.xyChart.dataSets[0].timeSeriesQuery.timeSeriesFilter.aggregation] == [
      { alignmentPeriod = "60s", perSeriesAligner = "ALIGN_FRACTION_TRUE", crossSeriesReducer = "REDUCE_MEAN", groupByFields = ["metric.label.check_id"] },
      { alignmentPeriod = "60s", perSeriesAligner = "ALIGN_MAX", crossSeriesReducer = "REDUCE_MAX", groupByFields = ["metric.label.check_id"] },
    ]
    error_message = "A line for each service: the fraction of places that pass, and the slowest answer."
  }
  assert {
    condition     = alltrue([for tile in jsondecode(google_monitoring_dashboard.health.dashboard_json).mosaicLayout.tiles : tile.height == 16 && tile.widget.title != "" && tile.widget.xyChart.dataSets[0].plotType == "LINE"]) && jsondecode(google_monitoring_dashboard.health.dashboard_json).displayName == "grpc-health: gRPC health"
    error_message = "The API refuses a dashboard without a name, tiles without a size, and charts without a type."
  }
}

run "regions_and_slow_checks" {
  variables {
    schedule = { period = 900, timeout = 10, regions = ["USA", "EUROPE"] }
  }
  assert {
    condition     = google_monitoring_uptime_check_config.service["quiz"].selected_regions == tolist(["EUROPE", "USA"])
    error_message = "The checkers are in the regions that were asked for."
  }
  assert {
    condition     = google_monitoring_alert_policy.down.conditions[0].condition_threshold[0].aggregations[0].alignment_period == "1800s" && google_monitoring_alert_policy.no_data.conditions[0].condition_absent[0].duration == "2700s"
    error_message = "The windows follow the period, or a slow check would look silent."
  }
}

run "no_alert_on_certificates" {
  variables {
    certificate_days = null
  }
  assert {
    condition     = length(google_monitoring_alert_policy.certificate) == 0
    error_message = "Without TLS there is no certificate."
  }
}
