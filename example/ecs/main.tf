# A gRPC server on Fargate behind an application load balancer. Clients' requests go to the server; health checks go to the proxy beside
# it, which asks the server and answers with a gRPC code that the load balancer understands.

data "aws_region" "current" {}

locals {
  metrics_port = 9000 # the image's; no security group lets anybody in

  # What the proxy may use. Its attacks' bound, see docs/container.md.
  proxy_memory = 64

  # The settings that have a variable of their own, in the program's name.
  own_settings = {
    GRPC_HEALTH_ADDR             = { variable = "grpc_port", value = "localhost:${var.grpc_port}" } # the containers of a task share localhost
    GRPC_HEALTH_SERVICE_NAME     = { variable = "services", value = join(",", var.services) }
    GRPC_HEALTH_CONNECT_TIMEOUT  = { variable = "connect_timeout", value = "${var.connect_timeout}s" }
    GRPC_HEALTH_RPC_TIMEOUT      = { variable = "rpc_timeout", value = "${var.rpc_timeout}s" }
    GRPC_HEALTH_HTTP_LISTEN_ADDR = { variable = "health_port", value = ":${var.health_port}" }
  }
  file_settings   = ["GRPC_HEALTH_CA_CERT", "GRPC_HEALTH_CLIENT_CERT", "GRPC_HEALTH_CLIENT_KEY"]
  secret_settings = concat(local.file_settings, ["GRPC_HEALTH_RPC_HEADERS"])
  other_settings = [
    "GRPC_HEALTH_ALL_ADDRESSES", "GRPC_HEALTH_MIN_HEALTHY_ADDRESSES", "GRPC_HEALTH_PAGE_TITLE",
    "GRPC_HEALTH_ALLOW_LIST", "GRPC_HEALTH_AUTHORITY", "GRPC_HEALTH_CONN_MAX_AGE", "GRPC_HEALTH_GZIP",
    "GRPC_HEALTH_LOG_FORMAT", "GRPC_HEALTH_LOG_LEVEL", "GRPC_HEALTH_MAX_CONCURRENT_CHECKS", "GRPC_HEALTH_SHOW_CAUSE",
    "GRPC_HEALTH_SHUTDOWN_GRACE", "GRPC_HEALTH_SNI_SERVER_NAME", "GRPC_HEALTH_TLS", "GRPC_HEALTH_TLS_NO_VERIFY", "GRPC_HEALTH_USER_AGENT",
  ]

  variable_for = merge(
    { for name, setting in local.own_settings : name => setting.variable },
    { for name in local.secret_settings : name => "secrets" },
  )
  known_settings = concat(keys(local.variable_for), local.other_settings)

  environment = {
    for name, value in merge(var.settings, { for name, setting in local.own_settings : name => setting.value }) : name => value if value != null && value != ""
  }

  tls = contains(["1", "t", "true"], lower(trimspace(coalesce(lookup(var.settings, "GRPC_HEALTH_TLS", null), "false"))))

  # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html#fargate-tasks-size
  memory = {
    "256"  = [512, 1024, 2048]
    "512"  = range(1024, 4097, 1024)
    "1024" = range(2048, 8193, 1024)
    "2048" = range(4096, 16385, 1024)
    "4096" = range(8192, 30721, 1024)
  }

  log = {
    for container in ["server", "health"] : container => {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.task.name
        awslogs-region        = data.aws_region.current.region
        awslogs-stream-prefix = container
      }
    }
  }
}

resource "aws_ecs_cluster" "cluster" {
  name = var.name
}

resource "aws_cloudwatch_log_group" "task" {
  name              = "/ecs/${var.name}"
  retention_in_days = var.log_retention_days
}

resource "aws_ecs_task_definition" "task" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = tostring(var.cpu)
  memory                   = tostring(var.memory)
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = var.task_role_arn

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = { arm64 = "ARM64", amd64 = "X86_64" }[var.architecture]
  }

  # https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html
  container_definitions = jsonencode([
    {
      name         = "server"
      image        = var.server_image
      essential    = true
      portMappings = [{ containerPort = var.grpc_port, protocol = "tcp" }]
      environment  = [for name, value in var.server_environment : { name = name, value = value }]
      # What depends on another container is started after it and stopped before it. So the proxy answers as long as the server runs.
      dependsOn        = [{ containerName = "health", condition = "HEALTHY" }]
      logConfiguration = local.log["server"]
    },
    {
      name         = "health"
      image        = var.proxy_image
      essential    = true # without it no target is ever healthy
      memory       = local.proxy_memory
      portMappings = [{ containerPort = var.health_port, protocol = "tcp" }]
      environment  = [for name, value in local.environment : { name = name, value = value }]
      secrets = [for name, arn in var.secrets : {
        name = name
        # ECS writes ARN:KEY:STAGE:VERSION for one key of a secret
        # (https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-secrets-manager.html).
        valueFrom = strcontains(arn, "#") ? "${split("#", arn)[0]}:${split("#", arn)[1]}::" : arn
      }]
      readonlyRootFilesystem = true
      # Is the proxy itself up? It says nothing about the server: a server that is not serving must not end the proxy.
      healthCheck = {
        command     = ["CMD", "/bin/grpc_health_proxy", "-check-self"]
        interval    = 10
        timeout     = 6
        retries     = 3
        startPeriod = 10
      }
      logConfiguration = local.log["health"]
    },
  ])
}

resource "aws_ecs_service" "service" {
  name            = var.name
  cluster         = aws_ecs_cluster.cluster.arn
  task_definition = aws_ecs_task_definition.task.arn
  desired_count   = var.desired_count
  launch_type     = "FARGATE"

  network_configuration {
    subnets         = var.subnet_ids
    security_groups = [aws_security_group.task.id]
  }

  # The traffic goes to the server. Only the health checks go to the proxy.
  load_balancer {
    target_group_arn = aws_lb_target_group.grpc.arn
    container_name   = "server"
    container_port   = var.grpc_port
  }

  # A deployment whose tasks do not get healthy ends, and the one before it comes back.
  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  # A target group takes tasks only once a listener uses it, and the first task needs the role's rights.
  depends_on = [aws_lb_listener.https, aws_iam_role_policy.execution]
}

resource "aws_lb" "balancer" {
  name                       = var.name
  load_balancer_type         = "application"
  internal                   = var.internal
  subnets                    = var.load_balancer_subnet_ids
  security_groups            = [aws_security_group.balancer.id]
  drop_invalid_header_fields = true
}

resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.balancer.arn
  protocol          = "HTTPS" # https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-target-groups.html#target-group-protocol-version
  port              = 443
  certificate_arn   = var.certificate_arn
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.grpc.arn
  }
}

resource "aws_lb_target_group" "grpc" {
  name             = var.name
  vpc_id           = var.vpc_id
  target_type      = "ip"
  protocol         = local.tls ? "HTTPS" : "HTTP"
  protocol_version = "GRPC"
  port             = var.grpc_port

  # https://docs.aws.amazon.com/elasticloadbalancing/latest/application/target-group-health-checks.html
  health_check {
    port     = tostring(var.health_port)
    protocol = "HTTP" # the proxy's port has no TLS; it verifies the server's certificate itself
    path     = "/AWS.ALB/healthcheck"
    # The default, 12 (UNIMPLEMENTED), is what every gRPC server says to a method that it does not have.
    matcher             = "0"
    interval            = var.health_check.interval
    timeout             = var.health_check.timeout
    healthy_threshold   = var.health_check.healthy_threshold
    unhealthy_threshold = var.health_check.unhealthy_threshold
  }
}
