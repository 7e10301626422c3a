mock_provider "aws" {
  source = "../mocks/aws"
}

variables {
  package   = "main.tf" # any file: nothing is uploaded
  grpc_addr = "grpc.example.com:443"
}

run "by_default" {
  # Private.
  assert {
    condition     = length(aws_lambda_function_url.health) == 0 && length(aws_lambda_permission.url) == 0 && length(aws_lambda_permission.url_invoke) == 0
    error_message = "Without a function URL and a resource policy only this account's policies let callers in."
  }
  assert {
    condition     = length(aws_route53_health_check.service) == 0 && length(aws_cloudwatch_metric_alarm.route53) == 0
    error_message = "Route 53 asks public endpoints only: it is opt-in."
  }
  assert {
    condition     = output.function_url == null && output.health_check_ids == {} && keys(output.alarm_topics) == ["eu-central-1"]
    error_message = "Nothing is where nothing was asked for."
  }

  # The function.
  assert {
    condition     = aws_lambda_function.health.runtime == "provided.al2023" && aws_lambda_function.health.handler == "bootstrap"
    error_message = "A Go program is a custom runtime, whose program is called bootstrap."
  }
  assert {
    condition     = aws_lambda_function.health.architectures == tolist(["arm64"])
    error_message = "The architecture is the package's."
  }
  assert {
    condition     = aws_lambda_function.health.filename == "main.tf" && aws_lambda_function.health.source_code_hash == filebase64sha256("main.tf")
    error_message = "A changed package of the same name is deployed: its hash tells."
  }
  assert {
    condition     = aws_lambda_function.health.timeout == 3
    error_message = "The invocation's deadline, less 200 ms, must not cut a check of 0.5 s and 0.8 s short."
  }
  assert {
    condition     = aws_lambda_function.health.memory_size == 256
    error_message = "CPU comes with memory: 256 MB start fast, and cost what they take."
  }
  assert {
    condition     = aws_lambda_function.health.reserved_concurrent_executions == -1 && length(aws_lambda_function.health.vpc_config) == 0
    error_message = "-1 reserves nothing; 0 would stop the function."
  }
  assert {
    condition     = aws_lambda_function.health.environment[0].variables == tomap({ GRPC_HEALTH_CONNECT_TIMEOUT = "0.5s", GRPC_HEALTH_ADDR = "grpc.example.com:443", GRPC_HEALTH_RPC_TIMEOUT = "0.8s" })
    error_message = "An unset setting is absent from the environment, so that the program's default holds."
  }
  assert {
    condition     = aws_lambda_function.health.logging_config[0].log_format == "Text" && aws_lambda_function.health.logging_config[0].log_group == aws_cloudwatch_log_group.function.name
    error_message = "CloudWatch makes metrics of lines that Lambda has not wrapped, and the role may write to this group only."
  }
  assert {
    condition     = aws_cloudwatch_log_group.function.name == "/aws/lambda/grpc-health" && aws_cloudwatch_log_group.function.retention_in_days == 30
    error_message = "A group that Lambda makes itself is kept, and billed, for ever."
  }
  assert {
    condition     = aws_lambda_function_event_invoke_config.function.maximum_retry_attempts == 0 && aws_lambda_function_event_invoke_config.function.maximum_event_age_in_seconds == 60 && aws_lambda_function_event_invoke_config.function.function_name == "grpc-health"
    error_message = "Lambda retries asynchronous invocations for hours: a late check says nothing about now."
  }

  # Its rights.
  assert {
    condition     = jsondecode(aws_iam_role_policy.function.policy).Statement == [{ Effect = "Allow", Action = ["logs:CreateLogStream", "logs:PutLogEvents"], Resource = ["${aws_cloudwatch_log_group.function.arn}:*"] }]
    error_message = "The role may write its own log, and nothing else."
  }
  assert {
    condition     = jsondecode(aws_iam_role.function.assume_role_policy).Statement == [{ Action = "sts:AssumeRole", Effect = "Allow", Principal = { Service = "lambda.amazonaws.com" } }]
    error_message = "Nobody but Lambda takes the role."
  }
  assert {
    condition     = aws_lambda_function.health.role == aws_iam_role.function.arn && aws_iam_role_policy.function.role == aws_iam_role.function.name && output.role_arn == aws_iam_role.function.arn
    error_message = "The function has this role, and the role this policy."
  }

  assert {
    condition     = alltrue([for policy in [aws_iam_role.function.assume_role_policy, aws_iam_role_policy.function.policy, aws_iam_role.schedule[0].assume_role_policy, aws_iam_role_policy.schedule[0].policy] : jsondecode(policy).Version == "2012-10-17"])
    error_message = "A policy without a version is read by the rules of 2008."
  }
  assert {
    condition     = aws_iam_role_policy.function.name == "function" && aws_iam_role_policy.schedule[0].name == "invoke" && strcontains(aws_lambda_function.health.description, "grpc.example.com:443")
    error_message = "The console says what this is for."
  }

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.certificate) == 0
    error_message = "Without TLS there is no certificate."
  }

  # The schedule and its alarm.
  assert {
    condition     = aws_scheduler_schedule.check[0].schedule_expression == "rate(1 minute)"
    error_message = "A rate of one takes the singular."
  }
  assert {
    condition     = aws_scheduler_schedule.check[0].flexible_time_window[0].mode == "OFF"
    error_message = "A flexible window would shift checks from one period of the alarm to another."
  }
  assert {
    condition     = aws_scheduler_schedule.check[0].target[0].arn == output.function_arn && aws_scheduler_schedule.check[0].target[0].role_arn == aws_iam_role.schedule[0].arn && aws_scheduler_schedule.check[0].target[0].input == "{}"
    error_message = "An empty object asks for what is configured."
  }
  assert {
    condition     = aws_scheduler_schedule.check[0].target[0].retry_policy[0].maximum_retry_attempts == 0 && aws_scheduler_schedule.check[0].target[0].retry_policy[0].maximum_event_age_in_seconds == 60
    error_message = "Scheduler retries for a day: a late check says nothing about now."
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.schedule[0].policy).Statement == [{ Effect = "Allow", Action = "lambda:InvokeFunction", Resource = output.function_arn }] && aws_iam_role_policy.schedule[0].role == aws_iam_role.schedule[0].name
    error_message = "The schedule may invoke this function, and nothing else."
  }
  assert {
    condition     = jsondecode(aws_iam_role.schedule[0].assume_role_policy).Statement == [{ Action = "sts:AssumeRole", Effect = "Allow", Principal = { Service = "scheduler.amazonaws.com" }, Condition = { StringEquals = { "aws:SourceAccount" = "123456789012" } } }]
    error_message = "Only schedules of this account take the role: others must not use it through Scheduler."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.up["(server)"].namespace == "GrpcHealth" && aws_cloudwatch_metric_alarm.up["(server)"].metric_name == "Up" && aws_cloudwatch_metric_alarm.up["(server)"].dimensions == tomap({ Function = "grpc-health", Service = "(server)" })
    error_message = "The alarm finds the metric by the names that the program writes, and another function's values are none of its."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.up["(server)"].statistic == "Minimum" && aws_cloudwatch_metric_alarm.up["(server)"].comparison_operator == "LessThanThreshold" && aws_cloudwatch_metric_alarm.up["(server)"].threshold == 1
    error_message = "Up is 1 or 0: the worst of a period counts."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.up["(server)"].treat_missing_data == "breaching"
    error_message = "No data is no health: a schedule that stops, or a function that fails, is an alarm."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.up["(server)"].period == 60 && aws_cloudwatch_metric_alarm.up["(server)"].datapoints_to_alarm == 2 && aws_cloudwatch_metric_alarm.up["(server)"].evaluation_periods == 3
    error_message = "Two of three checks: one lost invocation is no outage, and an outage is told within 5 minutes."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.up["(server)"].alarm_actions == toset([output.alarm_topics["eu-central-1"]]) && aws_cloudwatch_metric_alarm.up["(server)"].ok_actions == toset([output.alarm_topics["eu-central-1"]])
    error_message = "An alarm tells a topic of its own region, and also when it is over."
  }
}

run "everything" {
  variables {
    name         = "everything"
    architecture = "amd64"
    services     = ["echo.EchoServer", "quiz"]
    settings = {
      GRPC_HEALTH_TLS             = true
      GRPC_HEALTH_SNI_SERVER_NAME = ""
      GRPC_HEALTH_GZIP            = null
    }
    secrets = {
      GRPC_HEALTH_CA_CERT     = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:upstream-ca-AbCdEf"
      GRPC_HEALTH_CLIENT_CERT = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:client-AbCdEf#cert"
      GRPC_HEALTH_CLIENT_KEY  = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:client-AbCdEf#key"
    }
    secret_headers     = { x-api-key = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:api/key-AbCdEf" }
    secret_kms_keys    = ["arn:aws:kms:eu-central-1:123456789012:key/0123abcd"]
    vpc                = { subnet_ids = ["subnet-1", "subnet-2"], security_group_ids = ["sg-1"] }
    concurrency_limit  = 5
    connect_timeout    = 2
    log_retention_days = 7
    schedule_minutes   = 5
    alert_emails       = ["sre@example.com"]
  }
  assert {
    condition = aws_lambda_function.health.environment[0].variables == tomap({
      GRPC_HEALTH_CONNECT_TIMEOUT = "2s"
      GRPC_HEALTH_ADDR            = "grpc.example.com:443"
      GRPC_HEALTH_CA_CERT         = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:upstream-ca-AbCdEf"
      GRPC_HEALTH_CLIENT_CERT     = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:client-AbCdEf#cert"
      GRPC_HEALTH_CLIENT_KEY      = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:client-AbCdEf#key"
      GRPC_HEALTH_TLS             = "true"
      GRPC_HEALTH_RPC_HEADERS     = "x-api-key: @arn:aws:secretsmanager:eu-central-1:123456789012:secret:api/key-AbCdEf"
      GRPC_HEALTH_RPC_TIMEOUT     = "0.8s"
      GRPC_HEALTH_SERVICE_NAME    = "echo.EchoServer,quiz"
    })
    error_message = "The environment has the settings that are set, secrets by their ARNs, and nothing else."
  }
  assert {
    condition = [for statement in jsondecode(aws_iam_role_policy.function.policy).Statement : statement.Resource if contains(statement.Action, "secretsmanager:GetSecretValue")] == [[
      "arn:aws:secretsmanager:eu-central-1:123456789012:secret:upstream-ca-AbCdEf",
      "arn:aws:secretsmanager:eu-central-1:123456789012:secret:client-AbCdEf",
      "arn:aws:secretsmanager:eu-central-1:123456789012:secret:api/key-AbCdEf",
    ]]
    error_message = "The role may read the secrets that are named, by their ARNs without keys, and no others."
  }
  assert {
    condition     = [for statement in jsondecode(aws_iam_role_policy.function.policy).Statement : statement.Resource if contains(statement.Action, "kms:Decrypt")] == [["arn:aws:kms:eu-central-1:123456789012:key/0123abcd"]]
    error_message = "A secret with a key of its own needs kms:Decrypt on that key."
  }
  assert {
    condition     = [for statement in jsondecode(aws_iam_role_policy.function.policy).Statement : statement.Resource if contains(statement.Action, "ec2:CreateNetworkInterface") && contains(statement.Action, "ec2:DeleteNetworkInterface") && contains(statement.Action, "ec2:DescribeNetworkInterfaces") && contains(statement.Action, "ec2:DescribeSubnets") && contains(statement.Action, "ec2:AssignPrivateIpAddresses") && contains(statement.Action, "ec2:UnassignPrivateIpAddresses")] == [["*"]]
    error_message = "Lambda makes network interfaces with the function's role."
  }
  assert {
    condition     = alltrue([for statement in jsondecode(aws_iam_role_policy.function.policy).Statement : statement.Effect == "Allow"]) && length(jsondecode(aws_iam_role_policy.function.policy).Statement) == 4
    error_message = "The role has these four rights, and no more."
  }
  assert {
    condition     = aws_lambda_function.health.vpc_config[0].subnet_ids == toset(["subnet-1", "subnet-2"]) && aws_lambda_function.health.vpc_config[0].security_group_ids == toset(["sg-1"])
    error_message = "A private upstream is reached from its VPC."
  }
  assert {
    condition     = aws_lambda_function.health.architectures == tolist(["x86_64"]) && aws_lambda_function.health.reserved_concurrent_executions == 5 && aws_lambda_function.health.timeout == 4 && aws_cloudwatch_log_group.function.retention_in_days == 7
    error_message = "Lambda calls amd64 x86_64; limits are as asked for."
  }
  assert {
    condition     = aws_scheduler_schedule.check[0].schedule_expression == "rate(5 minutes)" && aws_cloudwatch_metric_alarm.up["quiz"].period == 300
    error_message = "A period without a check would be missing data: the alarm's is the schedule's."
  }
  assert {
    condition     = { for service, alarm in aws_cloudwatch_metric_alarm.up : service => alarm.dimensions.Service } == { "echo.EchoServer" = "echo.EchoServer", quiz = "quiz" }
    error_message = "Each service has an alarm of its own."
  }
  assert {
    condition     = one(values(aws_sns_topic_subscription.email)).endpoint == "sre@example.com" && one(values(aws_sns_topic_subscription.email)).protocol == "email" && one(values(aws_sns_topic_subscription.email)).topic_arn == output.alarm_topics["eu-central-1"] && one(values(aws_sns_topic_subscription.email)).region == "eu-central-1"
    error_message = "A topic that nobody subscribes to wakes nobody."
  }
  assert {
    condition     = aws_lambda_function.health.function_name == "everything" && output.function_name == "everything" && aws_iam_role.function.name == "everything-eu-central-1-function" && aws_iam_role.schedule[0].name == "everything-eu-central-1-schedule" && aws_scheduler_schedule.check[0].name == "everything" && aws_sns_topic.alarms["eu-central-1"].name == "everything-eu-central-1-alarms" && aws_cloudwatch_metric_alarm.up["quiz"].alarm_name == "everything: quiz not serving" && aws_cloudwatch_metric_alarm.certificate[0].alarm_name == "everything: a certificate ends soon" && aws_cloudwatch_log_group.function.name == "/aws/lambda/everything"
    error_message = "Names are an account's: two deployments differ in theirs. Roles are the same in all regions, so theirs have the region."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.certificate[0].namespace == "GrpcHealth" && aws_cloudwatch_metric_alarm.certificate[0].metric_name == "CertificateDaysLeft" && aws_cloudwatch_metric_alarm.certificate[0].dimensions == tomap({ Function = "everything", Service = "echo.EchoServer" })
    error_message = "One certificate, one alarm, on what each check writes, by the names that the program writes."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.certificate[0].statistic == "Minimum" && aws_cloudwatch_metric_alarm.certificate[0].comparison_operator == "LessThanThreshold" && aws_cloudwatch_metric_alarm.certificate[0].threshold == 14
    error_message = "The certificate that ends first counts."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.certificate[0].treat_missing_data == "ignore" && aws_cloudwatch_metric_alarm.certificate[0].period == 3600 && aws_cloudwatch_metric_alarm.certificate[0].evaluation_periods == 1
    error_message = "A server that is down shows no certificate: the other alarm tells of it, and this one stays as it is."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.certificate[0].alarm_actions == toset([output.alarm_topics["eu-central-1"]]) && aws_cloudwatch_metric_alarm.certificate[0].ok_actions == toset([output.alarm_topics["eu-central-1"]])
    error_message = "An alarm tells a topic of its own region, and also when it is over."
  }
  assert {
    condition = alltrue([for alarm in concat(values(aws_cloudwatch_metric_alarm.up), aws_cloudwatch_metric_alarm.certificate) :
      strcontains(alarm.alarm_description, "grpc.example.com:443") && strcontains(alarm.alarm_description, "What to do: ") && strcontains(alarm.alarm_description, "/aws/lambda/everything in eu-central-1") && strcontains(alarm.alarm_description, "docs/aws.md") && length(alarm.alarm_description) <= 1024
    ])
    error_message = "Who is woken up reads which server it is about and what to do. CloudWatch takes 1,024 characters."
  }
}

run "certificates_of_a_week" {
  variables {
    settings         = { GRPC_HEALTH_TLS = "True" }
    certificate_days = 2
    schedule_minutes = null
  }
  assert {
    condition     = one(aws_cloudwatch_metric_alarm.certificate).threshold == 2 && one(aws_cloudwatch_metric_alarm.certificate).dimensions.Service == "(server)"
    error_message = "A URL alone has callers, too, whose checks write the metric."
  }
}

run "no_alarm_on_certificates" {
  variables {
    settings         = { GRPC_HEALTH_TLS = true }
    certificate_days = null
  }
  assert {
    condition     = length(aws_cloudwatch_metric_alarm.certificate) == 0
    error_message = "null has none."
  }
}

run "the_same_name_in_another_region" {
  variables {
    services     = ["echo.EchoServer"]
    function_url = "NONE"
    route53      = {}
  }
  override_data {
    target = data.aws_region.current
    values = { region = "ap-southeast-1" }
  }
  assert {
    condition     = aws_iam_role.function.name == "grpc-health-ap-southeast-1-function" && aws_iam_role.schedule[0].name == "grpc-health-ap-southeast-1-schedule"
    error_message = "A role's name is the account's, in all regions."
  }
  assert {
    condition     = aws_sns_topic.alarms["us-east-1"].name == "grpc-health-ap-southeast-1-alarms" && aws_cloudwatch_metric_alarm.route53["echo.EchoServer"].alarm_name == "grpc-health-ap-southeast-1: Route 53 sees echo.EchoServer not serving" && aws_route53_health_check.service["echo.EchoServer"].tags.Name == "grpc-health-ap-southeast-1: echo.EchoServer"
    error_message = "us-east-1 has what is Route 53's of every region: a topic and an alarm of the same name would silently be another deployment's."
  }
}

run "unscheduled" {
  variables {
    schedule_minutes = null
  }
  assert {
    condition     = length(aws_scheduler_schedule.check) == 0 && length(aws_iam_role.schedule) == 0 && length(aws_iam_role_policy.schedule) == 0 && length(aws_cloudwatch_metric_alarm.up) == 0
    error_message = "An alarm on a metric that nobody writes would ring for ever."
  }
}

run "url_for_callers_of_this_account" {
  variables {
    function_url = "AWS_IAM"
  }
  assert {
    condition     = aws_lambda_function_url.health[0].authorization_type == "AWS_IAM" && length(aws_lambda_permission.url) == 0 && length(aws_lambda_permission.url_invoke) == 0
    error_message = "With AWS_IAM callers' own policies decide: nothing is public."
  }
}

run "public_url" {
  variables {
    services     = ["echo.EchoServer"]
    function_url = "NONE"
  }
  assert {
    condition     = aws_lambda_function.health.reserved_concurrent_executions == 10
    error_message = "Strangers can call a public URL: there is a limit to what they cost, and to what they take of the account's."
  }
  assert {
    condition     = aws_lambda_function_url.health[0].authorization_type == "NONE" && aws_lambda_function_url.health[0].invoke_mode == "BUFFERED" && aws_lambda_function_url.health[0].function_name == "grpc-health"
    error_message = "The program's answers are whole: a streaming URL would not understand them."
  }
  assert {
    condition     = one(aws_lambda_permission.url).action == "lambda:InvokeFunctionUrl" && one(aws_lambda_permission.url).principal == "*" && one(aws_lambda_permission.url).function_url_auth_type == "NONE" && one(aws_lambda_permission.url).function_name == "grpc-health"
    error_message = "A public URL needs lambda:InvokeFunctionUrl for everybody, through that URL."
  }
  assert {
    condition     = one(aws_lambda_permission.url_invoke).action == "lambda:InvokeFunction" && one(aws_lambda_permission.url_invoke).principal == "*" && one(aws_lambda_permission.url_invoke).function_name == "grpc-health"
    error_message = "Whatever its age, a public URL needs lambda:InvokeFunction, too."
  }
  assert {
    condition     = one(aws_lambda_permission.url_invoke).invoked_via_function_url
    error_message = "Everybody may invoke through the URL only, not with the Lambda API."
  }
  assert {
    condition     = length(aws_route53_health_check.service) == 0
    error_message = "A public URL alone asks for no health checks."
  }
}

run "route53" {
  variables {
    services     = ["echo.EchoServer", "a&b"]
    function_url = "NONE"
    route53      = { regions = ["eu-west-1", "us-east-1", "ap-southeast-1"], interval = 10 }
    alert_emails = ["sre@example.com"]
  }
  assert {
    condition     = { for service, check in aws_route53_health_check.service : service => check.resource_path } == { "a&b" = "/?service=a%26b&format=json", "echo.EchoServer" = "/?service=echo.EchoServer&format=json" }
    error_message = "Each service has a health check of its own, which asks for it alone, as JSON."
  }
  assert {
    condition     = aws_route53_health_check.service["a&b"].type == "HTTPS_STR_MATCH" && aws_route53_health_check.service["a&b"].port == 443
    error_message = "A function URL speaks HTTPS; a redirect or another page is no verdict, so the text counts."
  }
  assert {
    condition     = aws_route53_health_check.service["a&b"].search_string == "\"status\":\"SERVING\"" && !strcontains("{\"status\":\"NOT_SERVING\",\"services\":[{\"service\":\"a\",\"status\":\"NOT_SERVING\"}]}", aws_route53_health_check.service["a&b"].search_string)
    error_message = "Route 53 seeks the text anywhere in the body: it must not be in NOT_SERVING."
  }
  assert {
    condition     = strcontains("{\"status\":\"SERVING\",\"services\":[]}", aws_route53_health_check.service["a&b"].search_string)
    error_message = "The text is as the program writes it, without spaces."
  }
  assert {
    condition     = aws_route53_health_check.service["a&b"].enable_sni
    error_message = "With a text to seek SNI is off by default, and a function URL is found by nothing else."
  }
  assert {
    condition     = aws_route53_health_check.service["a&b"].fqdn == "abc123.lambda-url.eu-central-1.on.aws"
    error_message = "Route 53 takes a host name, without scheme and path."
  }
  assert {
    condition     = aws_route53_health_check.service["a&b"].failure_threshold == 3 && aws_route53_health_check.service["a&b"].request_interval == 10
    error_message = "Three failures in a row: one lost answer is no outage."
  }
  assert {
    condition     = aws_route53_health_check.service["a&b"].regions == toset(["eu-west-1", "us-east-1", "ap-southeast-1"])
    error_message = "The checkers are in the regions that were asked for: each of them is an invocation."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.route53["a&b"].region == "us-east-1"
    error_message = "Route 53 has its metrics in us-east-1 alone."
  }
  assert {
    condition     = strcontains(aws_cloudwatch_metric_alarm.route53["a&b"].alarm_description, "grpc.example.com:443") && strcontains(aws_cloudwatch_metric_alarm.route53["a&b"].alarm_description, "What to do: ") && strcontains(aws_cloudwatch_metric_alarm.route53["a&b"].alarm_description, "/aws/lambda/grpc-health in eu-central-1") && strcontains(aws_cloudwatch_metric_alarm.route53["a&b"].alarm_description, "docs/aws.md") && length(aws_cloudwatch_metric_alarm.route53["a&b"].alarm_description) <= 1024
    error_message = "Who is woken up reads which server it is about, and where the cause is. CloudWatch takes 1,024 characters."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.route53["a&b"].namespace == "AWS/Route53" && aws_cloudwatch_metric_alarm.route53["a&b"].metric_name == "HealthCheckStatus" && aws_cloudwatch_metric_alarm.route53["a&b"].dimensions == tomap({ HealthCheckId = output.health_check_ids["a&b"] })
    error_message = "The alarm finds the health check's metric by its ID."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.route53["a&b"].statistic == "Minimum" && aws_cloudwatch_metric_alarm.route53["a&b"].comparison_operator == "LessThanThreshold" && aws_cloudwatch_metric_alarm.route53["a&b"].threshold == 1 && aws_cloudwatch_metric_alarm.route53["a&b"].treat_missing_data == "breaching"
    error_message = "HealthCheckStatus is 1 or 0; a check that reports nothing is no health."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.route53["a&b"].period == 60 && aws_cloudwatch_metric_alarm.route53["a&b"].evaluation_periods == 1
    error_message = "The threshold of the health check has waited already: the alarm does not wait again."
  }
  assert {
    condition     = toset(keys(output.alarm_topics)) == toset(["eu-central-1", "us-east-1"]) && alltrue([for region, topic in aws_sns_topic.alarms : topic.region == region])
    error_message = "An alarm tells a topic of its own region, so us-east-1 has one, too."
  }
  assert {
    condition     = toset([for subscription in values(aws_sns_topic_subscription.email) : "${subscription.region} ${subscription.endpoint}"]) == toset(["eu-central-1 sre@example.com", "us-east-1 sre@example.com"])
    error_message = "An address hears of both regions' alarms."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.route53["a&b"].alarm_actions == toset([aws_sns_topic.alarms["us-east-1"].arn]) && aws_cloudwatch_metric_alarm.route53["a&b"].ok_actions == toset([aws_sns_topic.alarms["us-east-1"].arn])
    error_message = "The alarm tells somebody, and also when it is over."
  }
  assert {
    condition     = aws_route53_health_check.service["a&b"].tags.Name == "grpc-health-eu-central-1: a&b" && aws_cloudwatch_metric_alarm.route53["a&b"].alarm_name == "grpc-health-eu-central-1: Route 53 sees a&b not serving"
    error_message = "A health check's name is its tag Name; names tell services apart."
  }
}

run "route53_from_everywhere" {
  command = plan
  variables {
    services     = ["echo.EchoServer"]
    function_url = "NONE"
    route53      = {}
  }
  assert {
    condition     = aws_route53_health_check.service["echo.EchoServer"].request_interval == 30
    error_message = "The standard interval costs nothing extra."
  }
}

run "topics_where_the_function_is_in_us_east_1" {
  variables {
    services     = ["echo.EchoServer"]
    function_url = "NONE"
    route53      = {}
  }
  override_data {
    target = data.aws_region.current
    values = { region = "us-east-1" }
  }
  assert {
    condition     = keys(output.alarm_topics) == ["us-east-1"]
    error_message = "A region has one topic of this name."
  }
}
