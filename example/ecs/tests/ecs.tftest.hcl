# What the load balancer, ECS and the program need of each other.

mock_provider "aws" {
  source = "../../terraform/mocks/aws"
}

variables {
  server_image             = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/echo-server:v1.0.0"
  proxy_image              = "ghcr.io/example/grpc-health-http:v0.1.0"
  vpc_id                   = "vpc-0123456789abcdef0"
  subnet_ids               = ["subnet-0123456789abcdef0", "subnet-0fedcba9876543210"]
  load_balancer_subnet_ids = ["subnet-0123456789abcdef0", "subnet-0fedcba9876543210"]
  allowed_cidrs            = ["10.0.0.0/8", "192.168.0.0/16"]
  certificate_arn          = "arn:aws:acm:eu-central-1:123456789012:certificate/01234567-89ab-cdef-0123-456789abcdef"
}

run "the_least" {
  assert {
    condition     = aws_lb_target_group.grpc.protocol_version == "GRPC" && aws_lb_target_group.grpc.protocol == "HTTP" && aws_lb_target_group.grpc.port == 50051 && aws_lb_target_group.grpc.target_type == "ip"
    error_message = "The traffic is gRPC, and goes to the server. Tasks of Fargate are targets by address."
  }
  assert {
    condition     = aws_lb_target_group.grpc.health_check[0].port == "8080" && aws_lb_target_group.grpc.health_check[0].protocol == "HTTP" && aws_lb_target_group.grpc.health_check[0].path == "/AWS.ALB/healthcheck"
    error_message = "The health checks go to the proxy, by the path that answers with the code alone."
  }
  assert {
    condition     = aws_lb_target_group.grpc.health_check[0].matcher == "0"
    error_message = "The default, 12, is what a server says that has no such method: it would always be healthy."
  }
  assert {
    condition     = aws_lb_listener.https.protocol == "HTTPS" && aws_lb_listener.https.certificate_arn == var.certificate_arn && one(aws_lb_listener.https.default_action).target_group_arn == aws_lb_target_group.grpc.arn
    error_message = "A target group for gRPC needs a listener with HTTPS."
  }
  assert {
    condition     = aws_lb.balancer.internal && aws_lb.balancer.load_balancer_type == "application"
    error_message = "Nothing is public unless it is asked for."
  }
  assert {
    condition     = one(aws_ecs_service.service.load_balancer).container_name == "server" && one(aws_ecs_service.service.load_balancer).container_port == 50051
    error_message = "The target is the server's port."
  }
  assert {
    condition     = [for c in jsondecode(aws_ecs_task_definition.task.container_definitions) : c.name] == ["server", "health"] && alltrue([for c in jsondecode(aws_ecs_task_definition.task.container_definitions) : c.essential])
    error_message = "A task without its proxy is never healthy: ECS replaces it at once."
  }
  assert {
    condition     = { for v in jsondecode(aws_ecs_task_definition.task.container_definitions)[1].environment : v.name => v.value } == { GRPC_HEALTH_ADDR = "localhost:50051", GRPC_HEALTH_HTTP_LISTEN_ADDR = ":8080", GRPC_HEALTH_CONNECT_TIMEOUT = "1s", GRPC_HEALTH_RPC_TIMEOUT = "1s" }
    error_message = "The proxy asks the server beside it, and listens where the load balancer asks."
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.task.container_definitions)[1].healthCheck.command == ["CMD", "/bin/grpc_health_proxy", "-check-self"]
    error_message = "The image has no shell. A server that does not serve must not end the proxy."
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.task.container_definitions)[1].memory == 64 && jsondecode(aws_ecs_task_definition.task.container_definitions)[1].readonlyRootFilesystem
    error_message = "The proxy takes no memory from the server, and writes no files."
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.task.container_definitions)[0].dependsOn == [{ containerName = "health", condition = "HEALTHY" }]
    error_message = "The proxy is there before the server, and after it."
  }
  assert {
    condition     = aws_ecs_task_definition.task.network_mode == "awsvpc" && aws_ecs_task_definition.task.requires_compatibilities == toset(["FARGATE"]) && aws_ecs_task_definition.task.cpu == "256" && aws_ecs_task_definition.task.memory == "512" && one(aws_ecs_task_definition.task.runtime_platform).cpu_architecture == "ARM64"
    error_message = "A task of Fargate."
  }
  assert {
    condition     = aws_ecs_task_definition.task.task_role_arn == null && aws_ecs_task_definition.task.execution_role_arn == aws_iam_role.execution.arn
    error_message = "The containers have no rights by default."
  }
  assert {
    condition     = [for s in jsondecode(aws_iam_role_policy.execution.policy).Statement : s.Action] == [["logs:CreateLogStream", "logs:PutLogEvents"]] && jsondecode(aws_iam_role_policy.execution.policy).Statement[0].Resource == ["${aws_cloudwatch_log_group.task.arn}:*"]
    error_message = "Who starts the tasks may write their log, and no more."
  }
  assert {
    condition     = alltrue([for c in jsondecode(aws_ecs_task_definition.task.container_definitions) : c.logConfiguration.options.awslogs-group == "/ecs/grpc-server" && c.logConfiguration.options.awslogs-region == "eu-central-1" && c.logConfiguration.options.awslogs-stream-prefix == c.name])
    error_message = "Both containers write to the log, each to its own streams."
  }
  assert {
    condition     = toset([for r in aws_vpc_security_group_ingress_rule.clients : r.cidr_ipv4]) == toset(["10.0.0.0/8", "192.168.0.0/16"]) && alltrue([for r in aws_vpc_security_group_ingress_rule.clients : r.from_port == 443 && r.to_port == 443 && r.security_group_id == aws_security_group.balancer.id])
    error_message = "Clients reach the load balancer's listener only."
  }
  assert {
    condition     = toset([for r in aws_vpc_security_group_ingress_rule.task : "${r.from_port}-${r.to_port}"]) == toset(["50051-50051", "8080-8080"]) && alltrue([for r in aws_vpc_security_group_ingress_rule.task : r.security_group_id == aws_security_group.task.id && r.referenced_security_group_id == aws_security_group.balancer.id])
    error_message = "Only the load balancer reaches the server and the proxy, and nobody the metrics."
  }
  assert {
    condition     = toset([for r in aws_vpc_security_group_egress_rule.balancer : r.from_port]) == toset([50051, 8080]) && alltrue([for r in aws_vpc_security_group_egress_rule.balancer : r.security_group_id == aws_security_group.balancer.id && r.referenced_security_group_id == aws_security_group.task.id])
    error_message = "The load balancer reaches both ports."
  }
  assert {
    condition     = aws_lb_target_group.grpc.health_check[0].timeout > var.connect_timeout + var.rpc_timeout && aws_lb_target_group.grpc.health_check[0].interval == 10 && aws_lb_target_group.grpc.health_check[0].healthy_threshold == 2 && aws_lb_target_group.grpc.health_check[0].unhealthy_threshold == 2
    error_message = "The load balancer waits for the proxy's answer."
  }
  assert {
    condition     = one(aws_ecs_service.service.deployment_circuit_breaker).enable && one(aws_ecs_service.service.deployment_circuit_breaker).rollback
    error_message = "A deployment that does not get healthy is taken back."
  }
}

run "everything" {
  variables {
    name            = "echo"
    repository_arns = ["arn:aws:ecr:eu-central-1:123456789012:repository/echo-server"]
    grpc_port       = 8443
    health_port     = 8081
    services        = ["echo.EchoServer", "echo.Admin"]
    connect_timeout = 0.5
    rpc_timeout     = 2
    health_check    = { interval = 5, timeout = 3 }
    settings        = { GRPC_HEALTH_TLS = " True ", GRPC_HEALTH_SNI_SERVER_NAME = "echo.example.com", GRPC_HEALTH_LOG_LEVEL = null }
    secrets = {
      GRPC_HEALTH_CA_CERT     = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:echo-ca-AbCdEf"
      GRPC_HEALTH_CLIENT_CERT = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:echo-client-AbCdEf#cert"
      GRPC_HEALTH_CLIENT_KEY  = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:echo-client-AbCdEf#key"
    }
    secret_kms_keys    = ["arn:aws:kms:eu-central-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"]
    server_environment = { GREETING = "hello" }
    task_role_arn      = "arn:aws:iam::123456789012:role/echo"
    internal           = false
    desired_count      = 3
    cpu                = 1024
    memory             = 3072
    architecture       = "amd64"
  }
  assert {
    condition     = aws_lb_target_group.grpc.protocol == "HTTPS" && aws_lb_target_group.grpc.protocol_version == "GRPC" && aws_lb_target_group.grpc.port == 8443
    error_message = "A server with TLS gets the traffic with TLS."
  }
  assert {
    condition     = aws_lb_target_group.grpc.health_check[0].protocol == "HTTP" && aws_lb_target_group.grpc.health_check[0].port == "8081"
    error_message = "The proxy's port has no TLS, whatever the server's has."
  }
  assert {
    condition = { for v in jsondecode(aws_ecs_task_definition.task.container_definitions)[1].environment : v.name => v.value } == {
      GRPC_HEALTH_ADDR            = "localhost:8443", GRPC_HEALTH_HTTP_LISTEN_ADDR = ":8081", GRPC_HEALTH_SERVICE_NAME = "echo.Admin,echo.EchoServer",
      GRPC_HEALTH_CONNECT_TIMEOUT = "0.5s", GRPC_HEALTH_RPC_TIMEOUT = "2s", GRPC_HEALTH_TLS = " True ", GRPC_HEALTH_SNI_SERVER_NAME = "echo.example.com"
    }
    error_message = "Settings arrive by their names, and one that is null does not."
  }
  assert {
    condition = { for s in jsondecode(aws_ecs_task_definition.task.container_definitions)[1].secrets : s.name => s.valueFrom } == {
      GRPC_HEALTH_CA_CERT     = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:echo-ca-AbCdEf"
      GRPC_HEALTH_CLIENT_CERT = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:echo-client-AbCdEf:cert::"
      GRPC_HEALTH_CLIENT_KEY  = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:echo-client-AbCdEf:key::"
    }
    error_message = "Secrets are named and not shown; ECS has a form of its own for one key."
  }
  assert {
    condition = { for s in jsondecode(aws_iam_role_policy.execution.policy).Statement : join(" ", s.Action) => s.Resource } == {
      "logs:CreateLogStream logs:PutLogEvents"                                       = ["${aws_cloudwatch_log_group.task.arn}:*"]
      "ecr:BatchCheckLayerAvailability ecr:BatchGetImage ecr:GetDownloadUrlForLayer" = ["arn:aws:ecr:eu-central-1:123456789012:repository/echo-server"]
      "ecr:GetAuthorizationToken"                                                    = ["*"]
      "secretsmanager:GetSecretValue"                                                = ["arn:aws:secretsmanager:eu-central-1:123456789012:secret:echo-ca-AbCdEf", "arn:aws:secretsmanager:eu-central-1:123456789012:secret:echo-client-AbCdEf"]
      "kms:Decrypt"                                                                  = ["arn:aws:kms:eu-central-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"]
    }
    error_message = "The role may read what is named, and no more."
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.task.container_definitions)[0].environment == [{ name = "GREETING", value = "hello" }] && aws_ecs_task_definition.task.task_role_arn == "arn:aws:iam::123456789012:role/echo"
    error_message = "The server gets its own."
  }
  assert {
    condition     = !aws_lb.balancer.internal && aws_ecs_service.service.desired_count == 3 && aws_ecs_task_definition.task.cpu == "1024" && aws_ecs_task_definition.task.memory == "3072" && one(aws_ecs_task_definition.task.runtime_platform).cpu_architecture == "X86_64"
    error_message = "What was asked for."
  }
  assert {
    condition     = aws_iam_role.execution.name == "echo-eu-central-1-execution"
    error_message = "A role's name is the account's, in all regions."
  }
}
